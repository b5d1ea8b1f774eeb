"""Publishing on and loading from a Hub of our own, with this package and without it."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.modeling_lyrics.adapter_checks import mark_base
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.utils.model_card.card_file import is_ours, read_metadata

from ..cards import TEXTS
from . import CHECKPOINTS, OTHERS, PUBLISHED, STRATEGIES
from .server import run_hub

ROOT = Path(__file__).parents[2]
WEIGHTS = {"dpo": "adapter_model.safetensors", "full": "model.safetensors", "first": "model.safetensors"}
TOKEN = "hf_" + "notatoken1" * 4


def run_python(hub, folder, *arguments, **more):
    """Run Python as a client of the Hub, and return the JSON of its last line; `more` are environment variables."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, "CI": "1", "OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def hub(published, saved):
    """A Hub with the published layout, and repositories with faults."""
    with run_hub() as hub:
        hub.add(PUBLISHED, published)
        hub.add("other/gated", saved, gated=True)
        moving = hub.add("other/moving", saved)

        def push(path):
            if path == "processor_config.json" and len(moving.commits) == 1:
                files = moving.files()
                config = json.loads(files["refiner/config.json"]) | {"fingerprint": "that of another refiner"}
                moving.commit(files | {"refiner/config.json": json.dumps(config).encode()}, "Another refiner")

        moving.on_read = push
        yield hub


@pytest.fixture(scope="module")
def found(hub, saved, tmp_path_factory):
    """Results of all steps of a user with the package, in one process."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(saved, folder / "tiny")
    for name in ("optimizer.pt", "training_args.bin", "events.out.tfevents.1"):
        (folder / "tiny" / name).write_bytes(b"private")
    (folder / "tiny" / "checkpoint-1").mkdir()
    shutil.copyfile(saved / "model.safetensors", folder / "tiny" / "checkpoint-1" / "model.safetensors")
    original = type(hub).add

    def add(self, name, *args, **options):
        if name == "me/interrupted":
            self.refused_uploads = 1
        return original(self, name, *args, **options)

    hub.add = add.__get__(hub)
    results = run_python(hub, folder, "-m", "tests.hub.with_package", folder)
    results["folder"] = str(folder)
    return results


def check(found, step):
    """Results of a step that did not fail."""
    result = found[step]
    assert not isinstance(result, dict) or "error" not in result, result["error"]
    return result


def test_the_published_layout_by_its_id(found, hub, published_model, published):
    result = check(found, "published")
    assert result["auto"] == ["LyricsForConditionalGeneration", "LyricsProcessor"]
    assert result["model"] == mark_base(published_model)
    assert result["refiner"] == LyricsProcessor.from_pretrained(published).refiner.fingerprint()


def test_all_files_of_a_load_come_from_one_commit(found, hub):
    """After the revision was asked for once, only its commit is; a push meanwhile is not seen."""
    sha = next(iter(hub.repositories["other/moving"].commits))
    assert len(hub.repositories["other/moving"].commits) == 2
    result = check(found, "moving")
    assert result["refiner"] == result["recorded"]
    asked = [line for line in hub.requests if "other/moving" in line]
    assert not [line for line in asked if "/main" in line and "/revision/" not in line]
    assert all(sha in line for line in asked if "/resolve/" in line or "/tree/" in line)
    # Transformers asks by HEAD for safetensors of "main", to which it would convert the weights; it loads none of them
    of_published = [line for line in hub.requests if line.startswith(f"GET /{PUBLISHED}/resolve/")]
    assert of_published
    assert not [line for line in of_published if "/resolve/main/" in line]


def test_push_and_load_back(found, hub, saved):
    """The plan is what is uploaded; an unchanged model makes no second commit; states and pickles stay behind."""
    result = check(found, "pushed")
    (code, plan, _), ((first, printed, _), (second, _, _)) = result["plan"], result["pushes"]
    repository = hub.repositories["me/tiny"]
    assert (code, first, second) == (0, 0, 0)
    assert f"{hub.endpoint}/me/tiny/commit/" in printed
    assert repository.private
    assert repository.titles[:2] == ["initial commit", "Upload the model with ziya-lyrics"]
    files = repository.files()
    listed = {line.split()[1] for line in plan.split("bytes in")[0].splitlines()[:-1]}
    assert listed == files.keys()
    assert {"model.safetensors", "refiner/model.safetensors", "mqformer_tokenizer/tokenizer.json"} <= listed
    assert not [name for name in listed if name.endswith((".bin", ".pt")) or "checkpoint" in name or "events" in name]
    assert "Nothing was sent to me/tiny." in plan
    assert 'name = "me/tiny"' in files["README.md"].decode()
    assert result["model"] == mark_base(LyricsForConditionalGeneration.from_pretrained(saved))
    assert result["refiner"] == LyricsProcessor.from_pretrained(saved).refiner_fingerprint


def test_revisions(found, hub):
    result = check(found, "revisions")
    assert [code for code, *_ in result["commands"]] == [0, 0]
    assert "/me/tiny/discussions/1" in result["commands"][1][1]
    main, branch, request = result["models"]
    assert main == found["pushed"]["model"] != branch == request


def test_a_gated_repository_is_an_error(found):
    model, processor, code, _, printed = check(found, "gated")
    for message in (model, processor, printed):
        assert "other/gated" in message
        assert "gated" in message or "restricted" in message
    assert code == 2


def test_an_interrupted_upload_changes_nothing(found, hub):
    """The second one sends what is missing."""
    (first, _, error), (second, _, _) = check(found, "interrupted")
    assert (first, second) == (2, 0)
    assert "interrupted" in error
    assert hub.repositories["me/interrupted"].titles == ["initial commit", "Upload the model with ziya-lyrics"]


def test_a_push_that_would_surprise_is_refused(found, hub):
    """An adapter that nobody could load; a private model into a public repository. Nothing is sent."""
    (typo, _, of_typo), (public, _, of_public) = check(found, "refused")
    assert (typo, public) == (2, 2)
    assert "The base model me/typo is not on the Hub" in of_typo
    assert "other/moving exists and is public" in of_public
    assert "me/adapter" not in hub.repositories
    assert "Upload the model with ziya-lyrics" not in hub.repositories["other/moving"].titles


def test_a_push_replaces_the_model_that_was_there(found, hub):
    """With its code: a reader would load either of two models side by side."""
    assert check(found, "replaced") == [0, 0]
    *_, before, after = hub.repositories["me/replaced"].commits.values()
    assert {"modeling_lyrics.py", "config.json", "model.safetensors", "refiner/config.json"} <= before.keys()
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= after.keys()
    assert not [name for name in after if name.endswith(".py") or name.startswith(("config", "model", "refiner"))]


def test_trainers_upload_what_a_reader_needs(found, hub):
    """Of every strategy: adapter, its description and card at each push; checkpoints without pickled arguments."""
    result = check(found, "trained")
    assert result["equal"]
    assert all(result["equal"])
    assert result["has_refiner"]  # that of the base model
    assert result["steps"] == [1, 2, 3]
    steps = [f"Training in progress, step {step}" for step in (1, 2)]
    titles = {
        "end": [],
        "every_save": steps,
        "checkpoint": [title for step in steps for title in (step, f"{step}, checkpoint")],
        "all_checkpoints": [title for step in steps for title in (step, f"{step}, checkpoint")],
    }
    for strategy in STRATEGIES:
        repository = hub.repositories[f"me/{strategy}"]
        assert repository.titles == ["initial commit", *titles[strategy], "Model save"]
        for files in list(repository.commits.values())[1:]:
            assert {
                "adapter_model.safetensors",
                "adapter_config.json",
                "lyrics_adapter.json",
                "README.md",
            } <= files.keys()
            assert not [name for name in files if "refiner" in name or name.endswith("training_args.bin")]
            assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/tiny"
            assert json.loads(files["lyrics_adapter.json"])["base_model"] == "me/tiny"
            assert json.loads(files["lyrics_adapter.json"])["training_data"] == ["chats.jsonl"]
        assert read_metadata(files["README.md"].decode())["base_model"] == "me/tiny"
    kept = hub.repositories["me/all_checkpoints"].files()
    assert {"checkpoint-1/optimizer.pt", "checkpoint-2/optimizer.pt"} <= kept.keys()
    assert "last-checkpoint/optimizer.pt" in hub.repositories["me/checkpoint"].files()


def check_uploads(hub, kind, strategy):
    """Check that weights and card come with each push, and checkpoints as the strategy says."""
    repository = hub.repositories[f"me/{kind}-{strategy}"]
    step = "Training in progress, step 1"
    during = {"end": ["Model save"], "every_save": [step]}.get(strategy, [step, f"{step}, checkpoint"])
    # after the last step the model is saved again, and pushed if anything in it has changed
    assert [title for title in repository.titles[1:] if title != "Model save" or strategy == "end"] == during
    for files in list(repository.commits.values())[1:]:
        assert {WEIGHTS[kind], "README.md", "processor_config.json"} <= files.keys()
        assert is_ours(files["README.md"].decode())
        assert not [name for name in files if "refiner" in name]
    folders = {path.split("/")[0] for path in files if path.endswith("optimizer.pt")}
    assert folders == ({CHECKPOINTS[strategy]} if strategy in CHECKPOINTS else set())


def test_every_trainer_uploads(found, hub):
    """Preferences, the whole model and the first stage."""
    resumed = check(found, "others_trained")
    assert resumed == {f"{kind}-{strategy}": [1, 2] for kind, strategy in OTHERS if strategy in CHECKPOINTS}
    for kind, strategy in OTHERS:
        check_uploads(hub, kind, strategy)


@pytest.mark.slow
def test_every_trainer_uploads_with_every_strategy(saved, tmp_path):
    with run_hub() as hub:
        shutil.copytree(saved, tmp_path / "tiny")
        results = run_python(hub, tmp_path, "-m", "tests.hub.with_package", tmp_path, "pushed", "every_strategy")
        assert set(map(tuple, check(results, "every_strategy").values())) == {(1, 2)}
        for kind, strategy in product(WEIGHTS, STRATEGIES):
            check_uploads(hub, kind, strategy)


def test_the_first_stage(found, hub):
    result = check(found, "first_stage")
    assert result["model"] == "LyricsForPreTraining"
    assert result["oid"] in hub.repositories["me/stage1"].commits


def test_a_push_by_transformers_has_our_card(found, hub):
    assert check(found, "by_transformers")["refiner"] == found["pushed"]["refiner"]
    card = hub.repositories["me/parts"].files()["README.md"].decode()
    assert is_ours(card)
    assert 'name = "me/parts"' in card
    assert "More Information Needed" not in card


def test_an_adapter_of_a_folder_is_refused_before_the_training(found, hub):
    local, typo = check(found, "local_base")
    assert "give its id as base_model_id" in local
    assert "The base model me/typo is not on the Hub" in typo
    assert "me/local" not in hub.repositories


def test_nothing_that_was_uploaded_names_this_machine(found, hub):
    """In no commit of any repository: no path, user, token or pickled arguments."""
    secrets = [found["folder"], str(ROOT), os.path.expanduser("~") + "/", TOKEN, "private"]
    own = {name: repository for name, repository in hub.repositories.items() if name.startswith("me/")}
    assert len(own) == 10 + len(OTHERS)
    for name, repository in own.items():
        for files in repository.commits.values():
            assert not [path for path in files if path.endswith("training_args.bin")]
            texts = {path: content.decode() for path, content in files.items() if path.endswith(TEXTS)}
            leaks = [path for path, text in texts.items() if any(secret in text for secret in secrets)]
            leaks = [path for path in leaks if not path.endswith((".py", "tokenizer.json", "vocab.txt"))]
            assert not leaks, name
            assert "README.md" not in texts or name == "me/micro" or is_ours(texts["README.md"])


def test_a_machine_without_the_package(found, hub, tmp_path):
    """The shipped model, by its id, with the code beside its weights."""
    assert check(found, "with_code")[0] == check(found, "first_stage")["code"][0] == 0
    stage1 = Path(found["folder"]) / "stage1-code"
    file = Path(__file__).with_name("without_package.py")
    result = run_python(hub, tmp_path, file, "me/micro", SCENE_PICTURE, tmp_path / "again", "--stage1", stage1)
    assert result["module"] == "transformers_modules"
    assert result["first stage"] == ["LyricsForPreTraining", "LyricsProcessor"]
    assert result["AutoConfig"] == "LyricsConfig"
    assert result["AutoModel"] == "LyricsModel"
    assert (
        result["AutoModelForImageTextToText"] == result["AutoModelForMultimodalLM"] == "LyricsForConditionalGeneration"
    )
    assert (result["AutoProcessor"], result["AutoImageProcessor"]) == ("LyricsProcessor", "LyricsImageProcessorPil")
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    assert result["labels"] == processor.refine(str(SCENE_PICTURE))[0].labels
    assert result["generate"] == result["image-text-to-text"] == result["again"]
    assert result["generate"].strip().isdigit()


@pytest.mark.slow
def test_plain_trl_without_the_package(found, hub, tmp_path):
    """The second stage from the repository's own code: the loss falls."""
    assert check(found, "with_code")[0] == 0
    file = Path(__file__).with_name("plain_trl.py")
    losses = run_python(hub, tmp_path, file, "me/micro", SCENE_PICTURE, tmp_path / "run")
    assert len(losses) == 3
    assert losses[-1] < losses[0]
