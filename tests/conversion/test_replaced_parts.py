"""`lyrics compose --from`: parts of a whole model are replaced, and what does not fit is told from configurations."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, CLIPVisionConfig, CLIPVisionModel

from lyrics.assets.random_model import build_bert_tokenizer, micro_refiner_config
from lyrics.conversion.chat_template import choose_template
from lyrics.conversion.refiner_parts import _SETTINGS
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, LyricsRefinerConfig, LyricsVisualRefiner
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.processing_lyrics.processor_checks import find_padding
from lyrics_cli.main import main

from ..cards import check_card
from ..language_models import FAMILIES, Family, build_tokenizer, save_language_model


@pytest.fixture(scope="module")
def parts(tmp_path_factory, saved):
    """Folder with a language model, a vision encoder and the parts of a refiner, all with other weights."""
    folder = tmp_path_factory.mktemp("parts")
    save_language_model(FAMILIES["smollm2"], folder / "language")
    torch.manual_seed(5)
    vision = LyricsForConditionalGeneration.from_pretrained(saved).config.vision_config.to_dict() | {"image_size": 48}
    CLIPVisionModel(CLIPVisionConfig(**vision)).save_pretrained(folder / "vision")
    processor = AutoImageProcessor.from_pretrained(saved)
    processor.image_mean = [0.5, 0.5, 0.5]
    processor.save_pretrained(folder / "vision")
    refiner = LyricsVisualRefiner(micro_refiner_config(len(build_bert_tokenizer())))
    for name in ("tagger", "detector", "segmenter"):
        getattr(refiner, name).save_pretrained(folder / name)
    build_bert_tokenizer().save_pretrained(folder / "detector")
    return folder


def test_a_refiner_keeps_all_its_settings():
    """But its parts, and the fingerprint that they make."""
    parts = {"fingerprint", "tagger_config", "detector_config", "segmenter_config"}
    assert set(_SETTINGS) == set(LyricsRefinerConfig.__annotations__) - parts


def same(one, other):
    tensors = other.state_dict()
    return all(torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items())


def run(saved, out, *words):
    return main(["compose", "--from", str(saved), *map(str, words), "--out", str(out)])


def test_a_new_language_model(saved, parts, tmp_path, capsys):
    """It brings its tokenizer and template; the projection is new, and all else is kept."""
    assert run(saved, tmp_path / "out", "--language-model", parts / "language") == 0
    printed = capsys.readouterr().out
    for line in (
        "New:",
        "language model:",
        "projection to its width",
        "own chat template; answers are found by marks",
        "answers end at <|im_end|>",
        "To be trained:",
    ):
        assert line in printed
    old, new = (LyricsForConditionalGeneration.from_pretrained(place) for place in (saved, tmp_path / "out"))
    assert same(new.model.vision_model, old.model.vision_model)
    assert same(new.model.mqformer, old.model.mqformer)
    assert new.model.language_projection.out_features == 32
    assert (
        new.generation_config.eos_token_id == LyricsProcessor.from_pretrained(tmp_path / "out").tokenizer.eos_token_id
    )
    before, after = (LyricsProcessor.from_pretrained(place) for place in (saved, tmp_path / "out"))
    assert after.refiner_fingerprint == before.refiner_fingerprint
    prompt = after.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
    )
    assert prompt.endswith("<|im_start|>user\n<image>\nHi<|im_end|>\n")
    check_card(tmp_path / "out", base_model=None)


def test_new_eyes(saved, parts, tmp_path, capsys):
    """A vision encoder with its image size and normalization, and parts of the refiner."""
    words = [word for name in ("vision", "tagger", "detector", "segmenter") for word in (f"--{name}", parts / name)]
    assert run(saved, tmp_path / "out", *words) == 0
    printed = capsys.readouterr().out
    assert "visual queries read other features" in printed
    assert "grounding queries read other features" in printed
    old, new = (LyricsForConditionalGeneration.from_pretrained(place) for place in (saved, tmp_path / "out"))
    assert same(new.model.vision_model, CLIPVisionModel.from_pretrained(parts / "vision"))
    assert same(new.model.language_model, old.model.language_model)
    processor = LyricsProcessor.from_pretrained(tmp_path / "out")
    assert dict(processor.image_processor.size) == {"height": 48, "width": 48}
    assert list(processor.image_processor.image_mean) == [0.5, 0.5, 0.5]
    assert processor.chat_template == LyricsProcessor.from_pretrained(saved).chat_template
    before = LyricsProcessor.from_pretrained(saved).refiner
    assert processor.refiner_fingerprint == processor.refiner.fingerprint() != before.fingerprint()
    assert processor.refiner.config.max_regions == before.config.max_regions


def test_what_does_not_fit_is_told_before_weights_are_read(saved, tmp_path, capsys):
    """Each folder holds a config.json and no weights."""

    def place(name, **config):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return tmp_path / name

    wide = place("wide", model_type="clip_vision_model", hidden_size=80, num_attention_heads=4, image_size=32)
    bert = place("bert", model_type="t5")
    bare = place("bare", model_type="llama")
    sam = place("sam", model_type="sam", mask_decoder_config={"hidden_size": 64})
    for words, message in (
        (("--vision", wide), "features of width 80, and the MQ-Former of"),
        (("--language-model", bert), "is a t5, and no causal language model"),
        (("--language-model", bare), "holds no tokenizer: looked for tokenizer_config.json"),
        (("--segmenter", sam), "describes regions by 68 numbers"),
        (("--detector", sam), "is a sam; a detector is one of grounding-dino"),
        ((), "a part to replace"),
        (("--detector", sam, "--chat-template", "own"), "--chat-template goes with a new --language-model"),
    ):
        assert run(saved, tmp_path / "out", *words) == 2
        assert message in capsys.readouterr().err
    assert main(["compose", str(wide), "--language-model", str(bert), "--out", str(tmp_path / "out")]) == 2
    assert "no Lyrics model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("choice", "start"), [("vicuna", "A chat between"), ("FILE", "<q>"), (None, "<|im_start|>")])
def test_the_chat_template_is_chosen(saved, parts, tmp_path, choice, start):
    words = ["--language-model", parts / "language"]
    if choice == "FILE":
        source = "{% for m in messages %}{{ '<q>' ~ m['content'] ~ '<|im_end|>' }}{% endfor %}"
        (tmp_path / "chat.jinja").write_text(source)
        choice = tmp_path / "chat.jinja"
    if choice is not None:
        words += ["--chat-template", choice]
    assert run(saved, tmp_path / "out", *words) == 0
    prompt = LyricsProcessor.from_pretrained(tmp_path / "out").apply_chat_template([{"role": "user", "content": "Hi"}])
    assert prompt.removeprefix("<|im_start|>" if choice == "vicuna" else "").startswith(start)


@pytest.mark.parametrize("pad", [None, "<|pad|>"])
def test_a_tokenizer_without_the_usual_tokens(pad):
    """Any special token pads; without an end of sequence, Vicuna's template would never end an answer."""
    special = () if pad is None else (pad,)
    tokenizer = build_tokenizer(Family("llama", None, "generation tags", extra=special))
    with pytest.raises(ValueError, match="has no eos_token, which ends an answer under Vicuna's"):
        choose_template(None, tokenizer)
    if pad is None:
        with pytest.raises(ValueError, match="no token to pad with"):
            find_padding(tokenizer, "<image>")
    else:
        assert find_padding(tokenizer, "<image>") == pad


def test_a_chat_template_that_is_none(saved, parts, tmp_path, capsys):
    words = ["--language-model", parts / "language", "--chat-template"]
    assert run(saved, tmp_path / "out", *words, "chatml") == 2
    assert "must be own, vicuna or a Jinja file, and there is no file chatml" in capsys.readouterr().err
    for content, message in ((b" ", "empty.jinja is empty"), (b"\xff", "empty.jinja is no text in UTF-8")):
        (tmp_path / "empty.jinja").write_bytes(content)
        assert run(saved, tmp_path / "out", *words, tmp_path / "empty.jinja") == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.jinja").write_text("{{ messages")
    assert run(saved, tmp_path / "out", *words, tmp_path / "bad.jinja") == 2
    assert "takes no images: it fails with TemplateSyntaxError" in capsys.readouterr().err
