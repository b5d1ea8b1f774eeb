"""What version 0.1 wrote to disk keeps working: checkpoints, runs, stores and recipes, with the numbers they gave.

`tests/fixtures/saved_0_1` is a user's folder as that version left it; `write_saved_0_1.py` says what is in it. Every
case works in a copy of it, through commands and the packages' public names alone, so that no renaming touches this
file: when a case fails, something that users have on their disks no longer works.
"""

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForPreTraining, AutoProcessor, set_seed
from transformers.utils import logging

from lyrics.modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining, describe_provenance
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects
from lyrics.refinement import RefinementStore
from lyrics.trainers import LyricsPretrainingCollator
from lyrics.utils.seeding import stable_hash
from lyrics_cli.main import main

FOLDER = Path(__file__).parent / "fixtures" / "saved_0_1"
PHOTOS = ("photos/0.png", "photos/sub/5.png")
SETTINGS = ["--model", "composed", "--shard-size", "4", "--max-failure-rate", "0.5"]
NAMES, PATHS = ["--key-column", "name"], ["--image-column", "photo", "--root", "photos", "--limit", "7"]
REFINE = {
    "store": ["photos", "--out", "store", "--masks", *SETTINGS],
    "stores/tar": ["shards/0000{0..1}.tar", "--out", "stores/tar", *SETTINGS],
    "stores/lines": ["names.jsonl", *NAMES, "--image-column", "file", "--out", "stores/lines", *SETTINGS],
    "stores/paths": ["captions.jsonl", *PATHS, "--out", "stores/paths", *SETTINGS],
    "stores/parquet": ["table.parquet", *NAMES, "--out", "stores/parquet", *SETTINGS],
    "stores/table": ["table", "--limit", "5", "--out", "stores/table", *SETTINGS],
}
INTERRUPTED = "stores/interrupted"  # the tar source's, as it was when half of it was made
RUNS = {"pretrain": "pretrain", "stream": "pretrain", "sft": "sft", "dpo": "dpo"}


def command(*words):
    """Run a command of `lyrics`; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(list(words)) == 0, words
    return printed.getvalue()


def describe_objects(objects):
    described = {"labels": objects.labels, "tags": objects.tags, "boxes": objects.boxes, "scores": objects.scores}
    described["region_features"] = objects.region_features.astype(np.float32)
    return described if objects.masks is None else described | {"masks": np.packbits(objects.masks)}


@torch.no_grad()
def answer_photos(model, processor, **kwargs):
    """Logits of the last tokens of two prompts, and what follows the first."""
    prompts = ["<image>What is there?", "<image>Where is the red circle?"]
    pictures = [Image.open(name) for name in PHOTOS]
    inputs = processor(images=pictures, text=prompts, return_tensors="pt", padding=True, **kwargs)
    generated = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    return {
        "input_ids": inputs["input_ids"].tolist(),
        "mqformer_input_ids": inputs["mqformer_input_ids"].tolist(),
        "logits": model(**inputs).logits[:, -4:].numpy(),
        "generated": generated[:, inputs["input_ids"].shape[1] :].tolist(),
    }


# ---------------------------------------------------------------- checkpoints


def composed():
    model = AutoModelForImageTextToText.from_pretrained("composed")
    processor = AutoProcessor.from_pretrained("composed")
    assert isinstance(model, LyricsForConditionalGeneration)
    assert isinstance(processor, LyricsProcessor)
    with pytest.raises(ValueError, match="region"):  # `require_objects`
        model(input_ids=torch.tensor([[1, model.config.image_token_id]]), pixel_values=torch.zeros(1, 3, 28, 28))
    return {
        **answer_photos(model, processor),
        "chat": processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]),
        "max_image_pixels": processor.max_image_pixels,
        "provenance": {**describe_provenance(model, processor), "versions": None},
    }


def initialization():
    """What a configuration makes of random numbers: some of its fields decide nothing else."""
    set_seed(0)
    model = LyricsForConditionalGeneration(AutoConfig.from_pretrained("composed"))
    return {name: float(weight.detach().abs().mean()) for name, weight in model.named_parameters()}


def refiner():
    processor = LyricsProcessor.from_pretrained("composed")
    pictures = [Image.open(name) for name in PHOTOS]
    seen = processor.refine(pictures, return_masks=True)
    told = processor.refine(pictures[:1], tags=[["red circle", "cup"]])
    tagger = processor.refiner.config.tagger_config
    return {
        "fingerprint": processor.refiner.fingerprint(),
        "saved_fingerprint": processor.refiner_config.fingerprint,
        "chinese": tagger.chinese_labels,
        **{
            f"{number}.{name}": one
            for number, found in enumerate([*seen, *told])
            for name, one in describe_objects(found).items()
        },
    }


def refiner_configs():
    """Values, and what is derived of them, of refiners that have no weights here."""
    found = {}
    for folder in sorted(Path("refiner_configs").iterdir()):
        config = AutoConfig.from_pretrained(folder)
        found[folder.name] = {
            "tagger": None if config.tagger_config is None else config.tagger_config.threshold,
            "detector": config.detector_config.model_type,
            "segmenter": None if config.segmenter_config is None else config.segmenter_config.model_type,
            "region_feature_type": config.region_feature_type,
            "region_feature_size": config.region_feature_size,
            "detector_normalization": [list(one) for one in config.detector_normalization],
            "max_regions": config.max_regions,
        }
    return found


def name_of(row):
    """The name that 0.1 gave to a row without one, which decides its random draws."""
    return str(stable_hash(str(row.pixel_values.tobytes()), row.caption))


def pretraining():
    model = AutoModelForPreTraining.from_pretrained("pretrain")
    assert isinstance(model, LyricsForPreTraining)
    processor = LyricsProcessor.from_pretrained("pretrain")
    names = [row["photo"] for row in map(json.loads, Path("captions_eval.jsonl").read_text().splitlines())]
    store = RefinementStore.open("store")
    rows = [
        {"image": Image.open(f"photos/{name}"), "caption": f"a {name}", "visual_objects": store[name]} for name in names
    ]
    collator = LyricsPretrainingCollator(processor, seed=3, mask_probability=0.5)
    batch = collator([collator.prepare(row, name_of(collator.prepare(row))) for row in rows])
    wanted = {name: value for name, value in batch.items() if name not in ("samples", "position", "replaced")}
    with torch.no_grad():
        outputs = model(**wanted)
    return {name: float(value) for name, value in outputs.items() if name == "loss" or name.startswith("loss_")}


def adapter():
    """Merged with its base, whose refiner comes with it."""
    command("merge", "sft", "--out", "merged")
    model = AutoModelForImageTextToText.from_pretrained("merged")
    return answer_photos(model, LyricsProcessor.from_pretrained("merged"))


def preference_adapter():
    command("merge", "dpo", "--out", "merged")
    model = AutoModelForImageTextToText.from_pretrained("merged")
    return answer_photos(model, LyricsProcessor.from_pretrained("merged"))


def composed_again():
    """The first stage goes into another model for the second."""
    model = AutoModelForImageTextToText.from_pretrained("composed")
    model.model.language_model.save_pretrained("language")
    processor = LyricsProcessor.from_pretrained("composed")
    processor.tokenizer.save_pretrained("language")
    set_seed(0)
    command("compose", "pretrain", "--language-model", "language", "--refiner", "composed", "--out", "second")
    return answer_photos(
        AutoModelForImageTextToText.from_pretrained("second"), LyricsProcessor.from_pretrained("second")
    )


# ---------------------------------------------------------------- runs and recipes


def resumed(name):
    """The steps after the checkpoint: rows, rates, losses and weights are those of the run that was not interrupted."""

    def case():
        command(RUNS[name], "--config", f"{name}.yaml", "--resume")
        history = json.loads(Path(name, "trainer_state.json").read_text())["log_history"]
        times = ("runtime", "per_second", "total_flos")
        kept = [{key: one for key, one in line.items() if not any(word in key for word in times)} for line in history]
        weights = next(path for path in Path(name).glob("*.safetensors"))
        sums = {key: float(np.abs(weight.astype(np.float64)).mean()) for key, weight in load_file(weights).items()}
        return {"history": kept, "weights": sums}

    return case


def positions():
    """Where the interrupted stream goes on."""
    return json.loads(Path("stream/checkpoint-2/stream_0.json").read_text())


SCENES = {"backbone": 48000, "tagger": 24000, "detector": 80000, "segmenter": 112000}  # of the recipe of today


def micro_steps():
    """Steps that have finished are not repeated. They are refused when their recipe has changed, as four have."""
    from runpy import run_module
    from unittest import mock

    for step, scenes in SCENES.items():
        file = Path("micro", step, "finished.json")
        finished = json.loads(file.read_text())
        finished["settings"]["scenes"] = scenes
        file.write_text(json.dumps(finished))
    before = contents("micro")
    with mock.patch("sys.argv", ["micro", "--smoke", "--out", "micro"]):
        run_module("lyrics.recipes.micro", run_name="__main__")
    logging.set_verbosity_warning()
    assert contents("micro") == before
    return {"files": sorted(before)}


# ---------------------------------------------------------------- objects and stores


def objects():
    """Files of `lyrics refine --out`, and an answer that one of them is used for."""
    files = sorted(Path("seen").glob("*.objects.safetensors"))
    found = {
        f"{file.name}.{name}": value
        for file in files
        for name, value in describe_objects(VisualObjects.load(file)).items()
    }
    words = ["ask", PHOTOS[0], "What is there?", "--model", "composed", "--objects", str(files[0]), "--json"]
    said = json.loads(command(*words, "--max-new-tokens", "6"))
    return found | {"answer": said["answer"], "objects": said["objects"], "refiner": said["refiner"]}


def describe_store(folder):
    store = RefinementStore.open(folder)
    found = {"keys": list(store.keys()), "files": store.verify(), "stats": dataclasses.asdict(store.stats())}
    found["stats"].pop("bytes")  # of what is written today
    assert found["stats"].pop("pixels") is None  # which 0.1 did not know
    found["failures"] = [json.loads(line)["key"] for line in Path(folder, "failures.jsonl").read_text().splitlines()]
    for key in found["keys"]:
        row = store.row(key, return_masks=True)
        found |= {f"{key}.{name}": value for name, value in describe_objects(row.objects).items()}
        found[f"{key}.size"] = [row.width, row.height]
    return found


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def stored(name):
    """Read; asked for again, which does nothing; and half of it made again."""

    def case():
        found, before = describe_store(name), contents(name)
        command("refine-dataset", *REFINE[name])
        assert contents(name) == before, "a complete store is not written again"
        for path in Path(name, "shards").glob("00000000.*"):
            path.unlink()
        command("refine-dataset", *REFINE[name])
        assert_same(describe_store(name), found, name)
        return found

    return case


def looked_up():
    """By pixels, by the processor that it belongs to; and as Parquet."""
    from pyarrow.parquet import read_table

    processor = LyricsProcessor.from_pretrained("composed")
    processor.store = store = RefinementStore.open("store")
    for key in store.keys():  # noqa: SIM118  (not a dictionary)
        assert store.lookup(Image.open(f"photos/{key}")) == store[key]
        assert processor.refine(Image.open(f"photos/{key}"))[0] == store[key]
    RefinementStore.merge(["stores/lines", "stores/paths"], "both")
    store.export("exported")
    return {
        "merged": list(RefinementStore.open("both").keys()),
        "exported": {path.name: read_table(path).column_names for path in sorted(Path("exported").iterdir())},
        "fingerprint": store.manifest.refiner.fingerprint,
    }


def interrupted():
    """A store that was half made is completed."""
    finished = Path(INTERRUPTED, "shards", "00000000.arrow")
    before = finished.read_bytes()
    place = REFINE["stores/tar"].index("stores/tar")
    command("refine-dataset", *REFINE["stores/tar"][:place], INTERRUPTED, *REFINE["stores/tar"][place + 1 :])
    assert finished.read_bytes() == before, "a finished shard is not made again"
    return describe_store(INTERRUPTED)


CASES = {
    "composed": composed,
    "initialization": initialization,
    "refiner": refiner,
    "refiner_configs": refiner_configs,
    "pretraining": pretraining,
    "adapter": adapter,
    "preference_adapter": preference_adapter,
    "composed_again": composed_again,
    **{f"resumed.{name}": resumed(name) for name in RUNS},
    "positions": positions,
    "micro_steps": micro_steps,
    "objects": objects,
    **{f"stored.{name}": stored(name) for name in REFINE},
    "looked_up": looked_up,
    "interrupted": interrupted,
}

# ---------------------------------------------------------------- what is expected


def observe(case):
    """What a case finds in a fresh copy of the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(FOLDER, Path(scratch) / "saved")
        with contextlib.chdir(copy):
            return case()


def save_expected(found):
    """Write what was observed, arrays apart."""
    arrays = {
        f"{case}.{name}": np.ascontiguousarray(value)
        for case, values in found.items()
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }
    plain = {
        case: {name: value for name, value in values.items() if not isinstance(value, np.ndarray)}
        for case, values in found.items()
    }
    save_file(arrays, FOLDER / "expected.safetensors")
    (FOLDER / "expected.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def load_expected(case):
    arrays = load_file(FOLDER / "expected.safetensors")
    start = f"{case}."
    own = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
    return json.loads((FOLDER / "expected.json").read_text())[case] | own


def assert_same(found, expected, where):
    """Equal; numbers of random weights, through thresholds and layers, differ a little among processors."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}: {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{where}[{number}]")
    elif isinstance(expected, np.ndarray | float):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=5e-4, err_msg=where)
    else:
        assert found == expected, where


@pytest.mark.parametrize("case", CASES)
def test_saved_files_give_what_they_gave(case, caplog):
    logging.enable_propagation()
    logging.warning_once.cache_clear()
    assert_same(observe(CASES[case]), load_expected(case), case)
    assert "does not know the key" not in caplog.text


PICKLES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("training_args.bin"))


@pytest.mark.parametrize("path", PICKLES, ids=str)
def test_training_arguments_unpickle(path):
    """`training_args.bin` is a pickle that names modules and classes; no command reads it, but users do."""
    arguments = torch.load(FOLDER / path, weights_only=False)
    assert (arguments.learning_rate, arguments.max_steps, arguments.seed) == (0.001, 4, 7)
    assert type(arguments).__name__.startswith("Lyrics")
