"""Files of a processor that are damaged, missing or hostile: the message names them, and no code runs."""

import json
import shutil
import sys

import pytest
from transformers import dynamic_module_utils

from lyrics.assets import draw_table
from lyrics.processing_lyrics import LyricsProcessor


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "content",
    [b"", b"{nope", b"null", b"[]", b"{}", b"\xff\xfe\x00", b"[" * 10**5],
    ids=lambda content: ascii(content[:6]),
)
@pytest.mark.parametrize(
    "name",
    [f"{folder}tokenizer{kind}.json" for folder in ("", "mqformer_tokenizer/") for kind in ("", "_config")]
    + ["processor_config.json", "config.json"],
)
def test_damaged_files_are_named(damaged, name, content):
    """Without its settings, a tokenizer still has its vocabulary, and the model's are not the processor's."""
    (damaged / name).write_bytes(content)
    if content == b"{}" and name not in (
        "processor_config.json",
        "tokenizer.json",
        "mqformer_tokenizer/tokenizer.json",
    ):
        assert LyricsProcessor.from_pretrained(damaged)
        return
    with pytest.raises((OSError, ValueError), match=f"{name}|damaged"):
        LyricsProcessor.from_pretrained(damaged)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{nope", r"refiner/config\.json"),
        ("null", "The refiner in .*refiner cannot"),
        ("{}", "Unrecognized model in .*damaged"),
    ],
)
def test_a_damaged_refiner_is_named(damaged, content, message):
    """On first use; without it the processor can be used."""
    (damaged / "refiner" / "config.json").write_text(content)
    processor = LyricsProcessor.from_pretrained(damaged)
    with pytest.raises((OSError, ValueError), match=message):
        processor.refine(draw_table())


def test_a_tokenizer_that_is_missing_is_named(damaged):
    """Transformers would take the language model's tokenizer for the MQ-Former's."""
    shutil.rmtree(damaged / "mqformer_tokenizer")
    with pytest.raises(OSError, match=r"There is no mqformer_tokenizer in .*damaged/mqformer_tokenizer"):
        LyricsProcessor.from_pretrained(damaged)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mqformer_text": "everything"}, "mqformer_text must be one of"),
        ({"num_query_tokens": "many"}, "num_query_tokens must be a positive number, got 'many'"),
        ({"max_image_pixels": -1}, "max_image_pixels must be a positive number, got -1"),
        ({"region_feature_size": None}, "region_feature_size must be a positive number, got None"),
        ({"image_token": ""}, "image_token must be text, got ''"),
        ({"image_processor": 3}, "cannot be loaded as LyricsProcessor: AttributeError"),
    ],
)
def test_wrong_settings_are_named(damaged, values, message):
    edit(damaged / "processor_config.json", **values)
    with pytest.raises(ValueError, match=f"damaged cannot be loaded as LyricsProcessor.*{message}|{message}"):
        LyricsProcessor.from_pretrained(damaged)


@pytest.mark.parametrize("std", [0, [0.2, 0.2, 0.0], [0.2, -1, 0.2], float("nan")])
def test_pixels_are_divided_by_something(damaged, std):
    settings = json.loads((damaged / "processor_config.json").read_text())["image_processor"]
    edit(damaged / "processor_config.json", image_processor=settings | {"image_std": std})
    with pytest.raises(ValueError, match=r"damaged.*image_std of the image processor must be positive, got"):
        LyricsProcessor.from_pretrained(damaged)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch sprung') }}",
        "{{ messages.__class__.__base__ }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(damaged, template, monkeypatch, tmp_path):
    """Transformers runs templates in a sandbox."""
    monkeypatch.chdir(tmp_path)
    (damaged / "chat_template.jinja").write_text(template)
    processor = LyricsProcessor.from_pretrained(damaged)
    with pytest.raises(ValueError, match=r"The chat template does not take this .* is unsafe"):
        processor.apply_chat_template([{"role": "user", "content": "a"}])
    assert not (tmp_path / "sprung").exists()


def test_remote_code_is_not_run(damaged):
    """Neither the model's nor the processor's `auto_map` is followed unless asked for."""
    (damaged / "evil.py").write_text("open('sprung', 'w')\nclass Evil:\n    pass\n")
    edit(damaged / "processor_config.json", auto_map={"AutoProcessor": "evil.Evil"})
    edit(damaged / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    edit(damaged / "refiner" / "config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    assert LyricsProcessor.from_pretrained(damaged).refiner
    assert not list(damaged.parent.rglob("sprung"))


@pytest.mark.parametrize("folder", ["", "mqformer_tokenizer", "refiner"])
@pytest.mark.parametrize("trusted", [False, True])
def test_remote_code_runs_only_where_the_caller_says_so(damaged, folder, trusted, monkeypatch, tmp_path):
    """A tokenizer of an unknown class: Transformers asks on standard input unless it is told, and "y" is there."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    for place in (damaged, damaged / folder):
        (place / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Evil:\n    pass\n")
    auto_map = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    edit(damaged / folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil")
    with pytest.raises(ValueError, match="no attribute" if trusted else "trust_remote_code=True"):
        assert LyricsProcessor.from_pretrained(damaged, trust_remote_code=trusted or None).refiner
    assert (tmp_path / "sprung").exists() is trusted
