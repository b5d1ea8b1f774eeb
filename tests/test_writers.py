"""Every writer of a model's folder: killed while it writes, on a full disk, and repeated. Flipped bits in its files.

Stores of visual objects, the manifest of a checkpoint, and single files are tested where they are made.
"""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText

from lyrics.assets import write_random_checkpoint
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.modeling_lyrics.checkpoint_files import naming_disk_errors
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers.common.checkpointing import CheckpointError, check_checkpoint
from lyrics.utils.model_folder import STAGING, holds_model, write_model

from .failpoints import Failpoints, full_disk
from .pretraining_parts import build_model as build_stage_1
from .sft_parts import build_model, build_processor, build_text_config
from .trainers.sft_ranks import build_trainer

ROOT = Path(__file__).parents[1]
SETUP = """
import contextlib, io, os, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from transformers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
from lyrics.assets import ShapePairs, random_parts
from lyrics.trainers.dpo_trainer import LyricsDPOConfig, LyricsDPOTrainer, to_dataset
from lyrics.utils.model_folder import write_model
from lyrics_cli.main import main
from tests.failpoints import full_disk
from tests.trainers import sft_ranks, two_ranks

def command(*words):
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        code = main(list(words))
    if code:
        raise RuntimeError(printed.getvalue())

pretraining = two_ranks.build_trainer(tempfile.mkdtemp(), 1)
sft = sft_ranks.build_trainer(tempfile.mkdtemp())
whole = sft_ranks.build_trainer(tempfile.mkdtemp(), use_lora=False)
pairs = to_dataset([ShapePairs(2)[index] for index in range(2)])
model, processor = random_parts()
settings = dict(output_dir=tempfile.mkdtemp(), bf16=False, use_cpu=True, report_to=[], disable_tqdm=True)
dpo = LyricsDPOTrainer(model, LyricsDPOConfig(**settings), pairs, None, processor)
"""
TRAINERS = {name: f"{name}.save_model(folder)" for name in ("pretraining", "sft", "whole", "dpo")}
COMMANDS = {
    "init": 'command("init", "--out", folder)',
    "merge": 'command("merge", parts + "/adapter", "--out", folder)',
    "compose": 'command("compose", parts + "/stage1", "--language-model", parts + "/llm", "--out", folder)',
    "convert": 'command("convert", published, "--out", folder)',
}
WRITERS = TRAINERS | COMMANDS


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folder with a first stage, a language model, and an adapter with its base model."""
    from transformers import AutoModelForCausalLM

    from lyrics.assets.random_model import build_text_tokenizer

    folder = tmp_path_factory.mktemp("parts")
    for part in (build_stage_1(), build_processor()):
        part.save_pretrained(folder / "stage1")
    for part in (AutoModelForCausalLM.from_config(build_text_config()), build_text_tokenizer()):
        part.save_pretrained(folder / "llm")
    for part in (build_model(std=0.15), build_processor()):
        part.save_pretrained(folder / "base")
    trainer = build_trainer(folder / "run", model=str(folder / "base"), max_steps=1, save_steps=1)
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return folder


@pytest.fixture(scope="module")
def failpoints():
    """Process that has imported everything, and built the trainers."""
    with Failpoints(SETUP.format(root=str(ROOT))) as process:
        yield process


def contents(folder):
    """Content of every file below a folder, by path, without locks and hidden files."""
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in names.items() if not name.parts[0].startswith(".")}


@pytest.fixture(params=WRITERS)
def writer(request, failpoints, parts, published, tmp_path):
    """Function that runs a writer on the folder `out`, and that folder, in which a trainer's has a checkpoint."""
    out = tmp_path / "run" / "out"
    names = {"parts": str(parts), "published": str(published)}

    def write(code=WRITERS[request.param], **options):
        return failpoints.run(code, out, **names, **options)

    def reset():
        shutil.rmtree(out, ignore_errors=True)
        if request.param in TRAINERS:
            (out / "checkpoint-1").mkdir(parents=True)
            (out / "checkpoint-1" / "config.json").write_text("{}")

    write.code, write.reset = WRITERS[request.param], reset
    reset()
    return write, out


def test_killed_anywhere_and_repeated(writer):
    """The folder holds the whole model, or none, and the same command completes it."""
    write, out = writer
    run = write()
    assert run.error is None
    whole, operations = contents(out), run.operations
    assert holds_model(out)
    moves = [number for number, name in enumerate(operations, 1) if name.startswith("os.rename")]
    last = [number for number in moves if operations[number - 1].endswith("/config.json config.json")]
    stages = [1, 2, len(operations) // 2, moves[0], moves[len(moves) // 2], *moves[-2:], *last, len(operations)]
    for kill_at in sorted(set(stages)):
        write.reset()
        assert write(kill_at=kill_at).killed, operations[kill_at - 1]
        if holds_model(out):
            assert contents(out) == whole, operations[kill_at - 1]
            continue  # some commands refuse a folder that holds a model
        if out.is_dir():
            for auto_class in (AutoModel, AutoModelForImageTextToText):
                with pytest.raises((OSError, ValueError)):
                    auto_class.from_pretrained(out)
        run = write()
        assert run.error is None, operations[kill_at - 1]
        assert contents(out) == whole, operations[kill_at - 1]
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_named(writer):
    """By the folder, in one error that says what to do; nothing is left that stops a repetition."""
    write, out = writer
    run = write(f"with full_disk(3_000): {write.code}")
    assert "File too large (free some space or choose another place, and repeat)" in run.error
    assert run.error.rstrip().splitlines()[-1].endswith(f"'{out}'")
    assert not holds_model(out)
    assert write().error is None
    assert holds_model(out)


WRITE = """
with write_model(folder) as staged:
    for name in ("model-00001-of-00001.safetensors", "config.json", "processor_config.json", "notes"):
        with open(staged / name, "w") as file:
            file.write("new")
    os.mkdir(staged / "refiner")
    with open(staged / "refiner" / "config.json", "w") as file:
        file.write("new")
"""
OLD = ("model.safetensors", "config.json", "processor_config.json", "refiner/old", "log")
NEW = ("model-00001-of-00001.safetensors", "config.json", "processor_config.json", "notes", "refiner/config.json")


@pytest.mark.parametrize("older", [True, False], ids=["over an older model", "in a new folder"])
def test_killed_at_every_operation(failpoints, tmp_path, older):
    """The folder holds the old model, none, or the new one without a file of the old; other files stay."""
    out = tmp_path / "out"

    def reset():
        shutil.rmtree(out, ignore_errors=True)
        for name in OLD if older else ():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("old")

    old = dict.fromkeys(OLD, b"old") if older else {}
    new = dict.fromkeys(NEW, b"new") | ({"log": b"old"} if older else {})
    for run in failpoints.kill_everywhere(WRITE, out, reset):
        if out.is_dir() and holds_model(out):
            assert contents(out) in (old, new), run.operation
        if run.killed:
            assert failpoints.run(WRITE, out).error is None
            assert contents(out) == new, run.operation
            assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert contents(out) == new


def test_an_error_leaves_the_older_model(tmp_path):
    """And no new folder."""
    write_random_checkpoint(tmp_path / "old")
    before = contents(tmp_path / "old")
    for name in ("old", "new"):
        with pytest.raises(KeyError), write_model(tmp_path / name) as folder:
            _ = {}[folder.name]
    assert contents(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    assert not (tmp_path / "old" / STAGING).exists()


def flips(path, places=(0.0, 0.1, 0.5, 0.9, 1.0)):
    """Flip a bit of a file at several places, one after the other, and restore it."""
    content = path.read_bytes()
    for place in places:
        flipped = bytearray(content)
        flipped[int(place * (len(content) - 1))] ^= 2
        path.write_bytes(flipped)
        yield
    path.write_bytes(content)


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_found(parts):
    folder = parts / "run" / "checkpoint-1"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        for _ in flips(path):
            with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
                check_checkpoint(folder)
    check_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_flipped_bit_of_a_refiner_is_found(saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "copy")
    processor = LyricsProcessor.from_pretrained(folder)
    assert processor.refiner
    for _ in flips(folder / "refiner" / name, (0.3, 0.6, 0.95)):
        with pytest.raises((ValueError, OSError)):
            _ = LyricsProcessor.from_pretrained(folder).refiner


def test_a_flipped_bit_of_a_models_weights_is_not_noticed(saved, tmp_path):
    """Its layout is that of Transformers, without a checksum; docs/reliability.md says so."""
    folder = shutil.copytree(saved, tmp_path / "copy")
    for _ in flips(folder / "model.safetensors", (0.5, 0.9)):
        LyricsForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("part", ["model", "processor", "refiner"])
def test_save_pretrained_names_the_folder_of_a_full_disk(micro, tmp_path, part):
    model, processor = micro
    written = {"model": model, "processor": processor, "refiner": processor.refiner}[part]
    with full_disk(3_000), pytest.raises(OSError, match=r"free some space .*: '.*/out(/refiner)?'"):
        written.save_pretrained(tmp_path / "out")


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_torch_names_no_number(tmp_path, size):
    with full_disk(100), pytest.raises(OSError, match=r"free some space .*: 'there'"), naming_disk_errors("there"):
        torch.save({"a": torch.zeros(size)}, tmp_path / "a.bin")


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), OSError(errno.ENOENT, "No such file", "a"), ValueError("(os error 2)")]
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, naming_disk_errors("there"):
        raise error
    assert caught.value is error
