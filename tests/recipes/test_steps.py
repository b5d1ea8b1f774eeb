"""Steps of the micro model: a smoke run from scratch to table, figures and release."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lyrics.assets import MICRO_CHECKPOINT, MICRO_LANGUAGE_MODEL
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.ablations import VARIANTS
from lyrics.recipes.micro.common.run_folders import FINISHED, SHARED_STEPS, RunFolders
from lyrics.recipes.micro.pipeline.pretrained import write_pretrained
from lyrics.recipes.micro.pipeline.steps import STEPS, run_steps
from lyrics.recipes.micro.report.figures import (
    draw_accuracy,
    draw_answers,
    draw_attention,
    draw_refiner,
    draw_second_stage,
)
from lyrics.recipes.micro.report.release import (
    format_card,
    measure,
    write_compact,
    write_compact_first_stage,
    write_compact_language_model,
)
from lyrics.recipes.micro.report.table import format_table
from lyrics.recipes.micro.train_stages import train_stage1
from lyrics.recipes.micro.world.cases import KINDS
from lyrics.recipes.micro.world.scenes import draw_scene
from lyrics.retrieval import load_encoder


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The full model after a smoke run of all steps."""
    folders = RunFolders(tmp_path_factory.mktemp("micro"), smoke=True)
    run_steps(folders)
    return folders


def link_shared_steps(folders, full, steps=SHARED_STEPS):
    """Use the finished shared steps of the full model in other folders."""
    folders.out.mkdir(exist_ok=True)
    for step in steps:
        folders.folder(step).symlink_to(full.folder(step))


def test_every_step_runs_once(full):
    folders = [full.folder(step) for step in STEPS]
    before = [(folder / FINISHED).stat().st_mtime_ns for folder in folders]
    run_steps(full)
    assert [(folder / FINISHED).stat().st_mtime_ns for folder in folders] == before
    folders += [full.folder("language") / phase["name"] for phase in full.settings("language")["phases"]]
    trained = [folder for folder in folders if (folder / "trainer_state.json").is_file()]
    assert len(trained) == 9
    assert all((folder / "curves.png").is_file() for folder in trained)
    for folder in trained:
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert any("eval_loss" in line for line in log), folder
    results = json.loads((full.folder("language") / "results.json").read_text())
    assert set(results) == {"plain", "varied", "unknown"}
    assert all(set(accuracy) == set(KINDS) for accuracy in results.values())


def test_a_step_that_finished_with_another_recipe_is_refused(full):
    file = full.folder("vision") / FINISHED
    kept = file.read_text()
    file.write_text(json.dumps(json.loads(kept) | {"settings": {"max_steps": 99}}))
    with pytest.raises(ValueError, match=r"vision has finished with other settings .*max_steps"):
        run_steps(full, ["vision"])
    file.write_text(kept)


def test_former_names_of_settings_are_understood(full):
    """In `finished.json` of earlier versions."""
    file = full.folder("language") / FINISHED
    text = file.read_text().replace('"box_scale"', '"loudness"').replace('"attention_logit_scale"', '"softened"')
    assert text != file.read_text()
    file.write_text(text)
    assert full.has_finished("language")


def test_the_model_is_complete_and_small(full):
    folder = full.model("stage2")
    model, processor = LyricsForConditionalGeneration.from_pretrained(folder), LyricsProcessor.from_pretrained(folder)
    assert processor.refiner.fingerprint() == processor.refiner_fingerprint
    question = [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}]
    assert processor.apply_chat_template(question, add_generation_prompt=True) == "<s> USER: How many? ASSISTANT:"
    assert model.config.text_config.use_cache  # trainers turn it off
    assert model.generation_config.use_cache is not False
    modules = (model, processor.refiner)
    assert sum(parameter.numel() for module in modules for parameter in module.parameters()) < 7.5e6  # 15 MB in float16


@pytest.mark.parametrize("name", ["no_refiner", "no_stage1", "boxes_only"])
def test_variants_share_steps(full, name):
    folders = RunFolders(full.out, name, smoke=True)
    run_steps(folders)
    config = LyricsForConditionalGeneration.from_pretrained(folders.model("stage2")).config.mqformer_config
    assert config.num_queries == 24
    assert (config.num_grounding_queries == 0) == (name == "no_refiner")
    results = json.loads((folders.folder("evaluation") / "results.json").read_text())
    assert set(results["accuracy"]) == set(KINDS)
    assert VARIANTS[name].title in format_table(full.out)


def test_the_seed_determines_the_initial_weights(full, tmp_path):
    """Whatever ran before in the same process."""
    weights = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        folders = RunFolders(tmp_path / name, "no_stage1", seed, smoke=True)
        link_shared_steps(folders, full)
        train_stage1(folders)
        weights.append(load_file(folders.model("stage1") / "model.safetensors"))
    names = [name for name in weights[0] if name.endswith("query_tokens")]
    assert names
    for name in names:
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


def test_training_is_reproducible(full, tmp_path):
    """Bit for bit on the same machine, with each trainer: Transformers' own, the first stage's and the second's."""
    again, steps = RunFolders(tmp_path, smoke=True), ["tagger", "detector", "stage1", "composed", "stage2"]
    link_shared_steps(again, full, set(SHARED_STEPS) - set(steps))
    for step in steps:
        torch.manual_seed(17)  # whatever ran before in this process
        run_steps(again, [step])
        first, second = (load_file(run.model(step) / "model.safetensors") for run in (full, again))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == [], step


def test_a_compact_checkpoint_is_small_and_is_loaded_in_float32(full, tmp_path):
    assert write_compact(full.model("stage2"), tmp_path) < 15e6
    model, processor = (
        LyricsForConditionalGeneration.from_pretrained(tmp_path),
        LyricsProcessor.from_pretrained(tmp_path),
    )
    assert model.dtype == processor.refiner.dtype == torch.float32
    assert processor.refiner.fingerprint() == processor.refiner_fingerprint


def test_a_compact_language_model_has_the_same_weights_in_float16(full, tmp_path):
    trained = full.model("language")
    write_compact_language_model(trained, tmp_path)
    tensors, halves = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    torch.testing.assert_close(halves, {name: tensor.half() for name, tensor in tensors.items()}, rtol=0, atol=0)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.float32


def test_a_compact_first_stage_is_loaded_in_float32_with_the_refiner_of_the_whole_model(full, tmp_path):
    write_compact(full.model("stage2"), tmp_path / "whole")
    write_compact_first_stage(full.model("stage1"), tmp_path / "whole", tmp_path / "first")
    encoder = load_encoder(tmp_path / "first", refiner=tmp_path / "whole")
    assert encoder.model.dtype == torch.float32
    assert encoder.model.config.object_start_token_id == encoder.processor.tokenizer.convert_tokens_to_ids("[BOS]")
    scene = draw_scene("test", 0).image
    assert encoder.embed_images([scene]).shape == (1, 64)


def test_a_weight_too_large_for_float16_is_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(MICRO_LANGUAGE_MODEL)
    with torch.no_grad():
        model.model.norm.weight[0] = -1e5
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(ValueError, match=r"model\.norm\.weight reaches 100000, which float16"):
        write_compact_language_model(tmp_path / "trained", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stages_start_from_pretrained_parts(tmp_path):
    folders = RunFolders(tmp_path, smoke=True)
    write_pretrained(folders)
    run_steps(folders, [*SHARED_STEPS, "stage1", "composed"])
    write_pretrained(folders)
    assert not folders.model("backbone").exists()
    composed = load_file(folders.model("composed") / "model.safetensors")
    language = load_file(MICRO_LANGUAGE_MODEL / "model.safetensors")
    shipped = load_file(MICRO_CHECKPOINT / "model.safetensors")
    expected = {f"model.language_model.{name.removeprefix('model.')}": tensor for name, tensor in language.items()}
    expected |= {name: tensor for name, tensor in shipped.items() if name.startswith("model.vision_model.")}
    same = {name: torch.equal(composed[name], tensor.float()) for name, tensor in expected.items() if name in composed}
    assert {name.rsplit(".", 2)[1] for name, equal in same.items() if not equal} == {"q_proj"}  # its logits are scaled
    assert sum(name.startswith("model.vision_model.") for name in same) > 20
    processors = [LyricsProcessor.from_pretrained(path) for path in (MICRO_CHECKPOINT, folders.model("composed"))]
    assert len({processor.refiner_fingerprint for processor in processors}) == 1


def test_pretrained_parts_do_not_replace_trained_ones(full):
    with pytest.raises(ValueError, match=r"holds results of its own for backbone, vision, .*\. Choose another folder"):
        write_pretrained(full)


def test_the_model_card_contains_what_was_measured(full):
    measured = measure(full.model("stage2"), questions=1, scenes=1)
    card = format_card(measured, 7_000_000)
    assert "7.0 MB" in card
    found = [f"{of_world['shapes_found']:.1f}" for of_world in measured["refiner"].values()]
    assert f"\n| shapes found | {' | '.join(found)} |\n" in card
    existence = measured["answers"]["own world, plain wording"]["existence"]
    assert f"\n| own world, plain wording | {existence:.0f} ± 40 |" in card


def test_figures_are_drawn(full, tmp_path):
    model = full.model("stage2")
    draw_refiner(model, tmp_path / "refiner.png")
    draw_accuracy(full.out, tmp_path / "accuracy.png")
    draw_second_stage(full.out, tmp_path / "second_stage.png")
    draw_answers(model, tmp_path / "answers.png")
    draw_attention(model, tmp_path / "attention.png")
    for file in tmp_path.glob("*.png"):
        drawn = Image.open(file).convert("RGB").getcolors(1 << 24)
        assert sum(len(set(color)) > 1 for _, color in drawn) > 10, file.name  # empty axes are gray
    assert len(list(tmp_path.iterdir())) == 5


def test_attention_logits_are_scaled_before_the_last_phase_and_the_second_stage(full):
    """The two optimization steps of a phase change weights by far less."""
    *_, before, last = full.settings("language")["phases"]
    weights = [
        norm_of_queries(next((full.folder("language") / before["name"]).glob("checkpoint-*"))),
        norm_of_queries(full.model("language")),
        norm_of_queries(full.model("composed")),
    ]
    assert weights[1] / weights[0] == pytest.approx(last["attention_logit_scale"], rel=0.05)
    assert weights[2] / weights[1] == pytest.approx(0.5, rel=1e-5)


def norm_of_queries(folder):
    tensors = load_file(folder / "model.safetensors")
    queries = [tensor for name, tensor in tensors.items() if name.endswith("q_proj.weight") and "vision" not in name]
    return torch.cat([tensor.flatten() for tensor in queries]).norm()
