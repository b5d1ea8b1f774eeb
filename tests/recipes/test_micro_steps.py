"""The micro model's steps: from nothing to a table, and not twice."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaModel

from lyrics.assets import MICRO_CHECKPOINT, MICRO_LANGUAGE_MODEL
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, LyricsMQFormerModel
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.ablations import VARIANTS
from lyrics.recipes.micro.common.muon import Muon, MuonWithAdamW
from lyrics.recipes.micro.common.step_trainer import StepArguments, train_step
from lyrics.recipes.micro.configs import build_micro_text_tokenizer, language_model_config, mqformer_config
from lyrics.recipes.micro.evaluate import KINDS, draw_cases, guess, is_right, overlap
from lyrics.recipes.micro.language_model.train import soften_attention
from lyrics.recipes.micro.pipeline.pretrained import take_shipped
from lyrics.recipes.micro.pipeline.steps import FINISHED, OWN, SHARED, Workshop, run_steps
from lyrics.recipes.micro.refiner.cell_labels import NOTHING
from lyrics.recipes.micro.refiner.segmenter import tint, view_objects
from lyrics.recipes.micro.report.figures import (
    draw_accuracy,
    draw_answers,
    draw_attention,
    draw_refiner,
    draw_second_stage,
)
from lyrics.recipes.micro.report.release import format_card, write_compact, write_compact_language_model
from lyrics.recipes.micro.report.table import format_table
from lyrics.recipes.micro.train_stages import settle_queries, train_stage1
from lyrics.recipes.micro.world.questions import Question, novelty
from lyrics.recipes.micro.world.scenes import draw_scene


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("micro"), smoke=True)
    run_steps(shop)
    return shop


def test_every_step_runs_once(workshop):
    folders = [workshop.shared(step) for step in SHARED] + [workshop.own(step) for step in OWN]
    before = [(folder / FINISHED).stat().st_mtime_ns for folder in folders]
    run_steps(workshop)
    assert [(folder / FINISHED).stat().st_mtime_ns for folder in folders] == before
    folders += [workshop.shared("language") / phase["name"] for phase in workshop.settings("language")["phases"]]
    trained = [folder for folder in folders if (folder / "trainer_state.json").is_file()]
    assert len(trained) == 9
    assert all((folder / "curves.png").is_file() for folder in trained)
    for folder in trained:
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert any("eval_loss" in line for line in log), folder
    told = json.loads((workshop.shared("language") / "results.json").read_text())
    assert set(told["accuracy"]) == set(KINDS)


def test_a_step_that_finished_with_another_recipe_is_not_taken_for_done(workshop):
    file = workshop.shared("vision") / FINISHED
    kept = file.read_text()
    file.write_text(json.dumps(json.loads(kept) | {"settings": {"max_steps": 99}}))
    with pytest.raises(ValueError, match=r"vision has finished with other settings .*max_steps"):
        run_steps(workshop, ["vision"])
    file.write_text(kept)


def test_the_model_is_complete_and_small(workshop):
    folder = workshop.own("stage2") / "model"
    model, processor = LyricsForConditionalGeneration.from_pretrained(folder), LyricsProcessor.from_pretrained(folder)
    assert processor.refiner.fingerprint() == processor.refiner_fingerprint
    question = [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}]
    assert processor.apply_chat_template(question, add_generation_prompt=True) == "<s> USER: How many? ASSISTANT:"
    assert model.config.text_config.use_cache  # trainers turn it off
    assert model.generation_config.use_cache is not False
    modules = (model, processor.refiner)
    assert sum(parameter.numel() for module in modules for parameter in module.parameters()) < 7.5e6  # 15 MB in float16


@pytest.mark.parametrize("name", ["no_refiner", "no_stage1", "boxes_only"])
def test_variants_share_steps_and_differ_in_theirs(workshop, name):
    shop = Workshop(workshop.out, name, smoke=True)
    run_steps(shop)
    config = LyricsForConditionalGeneration.from_pretrained(shop.own("stage2") / "model").config.mqformer_config
    assert config.num_queries == 24
    assert (config.num_grounding_queries == 0) == (name == "no_refiner")
    results = json.loads((shop.own("evaluation") / "results.json").read_text())
    assert set(results["accuracy"]) == set(KINDS)
    assert VARIANTS[name].title in format_table(workshop.out)


def test_the_seed_decides_what_a_model_begins_with(workshop, tmp_path):
    """And nothing that ran before in the same process does."""
    weights = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        shop = Workshop(workshop.out, "no_stage1", seed, smoke=True)
        places = {part: shop.shared(part) for part in ("refiner", "rows")}
        places |= {"vision": shop.shared("vision") / "model", "store": shop.shared("store") / "all"}
        settings = shop.run_settings("stage1", tmp_path / name)
        train_stage1(settings, shop.variant, **places, out=tmp_path / name / "model")
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    names = [name for name in weights[0] if name.endswith("query_tokens")]
    assert names
    for name in names:
        assert torch.equal(weights[0][name], weights[1][name])
        assert not torch.equal(weights[0][name], weights[2][name])


def test_what_is_trained_again_from_the_same_seed_is_the_same(workshop, tmp_path):
    """Bit for bit, on the same processor, by each trainer: Transformers' own, the first stage's and the second's."""
    again, steps = Workshop(tmp_path, smoke=True), ["tagger", "detector", "stage1", "composed", "stage2"]
    for step in set(SHARED) - set(steps):
        again.shared(step).symlink_to(workshop.shared(step))
    for step in steps:
        torch.manual_seed(17)  # whatever ran before in this process
        run_steps(again, [step])
        first, second = (load_file(shop.folder(step) / "model" / "model.safetensors") for shop in (workshop, again))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == [], step


def test_the_segmenter_learns_shapes_where_colors_say_nothing_about_them():
    """Of each picture it is told one or the other, and colors change their places only where they are not told."""
    pictures = {}
    for number in range(40):
        row = view_objects(draw_scene("train", 0), np.random.default_rng(number))
        told = tuple(kind for kind in ("color", "shape") if (row[kind] != NOTHING).all())
        assert all((row[f"{kind}_cells"] == NOTHING).all() for kind in {"color", "shape"} - set(told))
        pictures.setdefault(told, []).append(np.asarray(row["pixel_values"]))
    assert set(pictures) == {("color",), ("shape",)}
    assert all((picture == pictures["color",][0]).all() for picture in pictures["color",])
    assert len({picture.tobytes() for picture in pictures["shape",]}) == len(pictures["shape",])


def test_a_tint_leaves_grey_grey():
    grey = np.repeat(np.arange(8, 200, 8, dtype=np.uint8)[:, None, None], 3, axis=2)
    tinted = np.asarray(tint(Image.fromarray(grey), np.random.default_rng(0)))
    assert (tinted.max(axis=2) == tinted.min(axis=2)).all()
    assert (np.diff(tinted[:, 0, 0].astype(int)) > 0).all()


def test_a_box_is_right_when_half_of_it_is():
    question = Question("referring", "Where is the red ring?", "red ring", (0.0, 0.0, 0.5, 0.5))
    assert overlap((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25)) == pytest.approx(0.5)
    assert is_right(question, "red ring: [0.000, 0.000, 0.500, 0.260]")
    assert not is_right(question, "red ring: [0.000, 0.000, 0.500, 0.240]")
    assert not is_right(question, "red ring")


@pytest.mark.parametrize(
    ("kind", "text", "answer", "expected"),
    [
        ("color", "What color is the large cross?", "purple", "held out"),
        ("color", "What color is the large cross?", "red", "shown"),
        ("referring", "Where is the blue star?", "blue star", "held out"),
        ("description", "What is this?", "a small blue ring with the character T", "shown"),
        ("relation", "Is the blue star left of the red ring?", "yes", None),
        ("count", "How many crosses are there?", "2", None),
    ],
)
def test_it_is_known_which_questions_are_about_what_training_never_showed(kind, text, answer, expected):
    assert novelty(Question(kind, text, answer)) == expected


def test_guessing_is_not_knowing():
    found = guess(draw_cases(40))
    assert set(found["majority"]) == set(KINDS)
    assert all(value < 75 for by_kind in found.values() for value in by_kind.values())


def test_the_shipped_form_is_small_and_computes_the_same_wherever_it_is_loaded(workshop, tmp_path):
    assert write_compact(workshop.own("stage2") / "model", tmp_path) < 15e6
    model, processor = (
        LyricsForConditionalGeneration.from_pretrained(tmp_path),
        LyricsProcessor.from_pretrained(tmp_path),
    )
    assert model.dtype == processor.refiner.dtype == torch.float32
    assert processor.refiner.fingerprint() == processor.refiner_fingerprint


def test_the_language_model_s_shipped_form_is_half_as_large_and_no_other(workshop, tmp_path):
    trained = workshop.shared("language") / "model"
    write_compact_language_model(trained, tmp_path)
    tensors, halves = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    torch.testing.assert_close(halves, {name: tensor.half() for name, tensor in tensors.items()}, rtol=0, atol=0)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.float32


def test_a_weight_that_float16_cannot_hold_is_not_shipped_as_infinity(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(MICRO_LANGUAGE_MODEL)
    with torch.no_grad():
        model.model.norm.weight[0] = -1e5
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(ValueError, match=r"model\.norm\.weight reaches 100000, which float16"):
        write_compact_language_model(tmp_path / "trained", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_two_stages_go_on_from_what_ships(tmp_path):
    shop = Workshop(tmp_path, smoke=True)
    take_shipped(shop)
    run_steps(shop, [*SHARED, "stage1", "composed"])
    take_shipped(shop)
    assert not (shop.shared("backbone") / "model").exists()
    composed = load_file(shop.own("composed") / "model" / "model.safetensors")
    language = load_file(MICRO_LANGUAGE_MODEL / "model.safetensors")
    shipped = load_file(MICRO_CHECKPOINT / "model.safetensors")
    expected = {f"model.language_model.{name.removeprefix('model.')}": tensor for name, tensor in language.items()}
    expected |= {name: tensor for name, tensor in shipped.items() if name.startswith("model.vision_model.")}
    same = {name: torch.equal(composed[name], tensor.float()) for name, tensor in expected.items() if name in composed}
    assert {name.rsplit(".", 2)[1] for name, equal in same.items() if not equal} == {"q_proj"}  # it is softened
    assert sum(name.startswith("model.vision_model.") for name in same) > 20
    processors = [LyricsProcessor.from_pretrained(path) for path in (MICRO_CHECKPOINT, shop.own("composed") / "model")]
    assert len({processor.refiner_fingerprint for processor in processors}) == 1


def test_what_ships_does_not_replace_what_was_trained(workshop):
    with pytest.raises(ValueError, match=r"holds backbone, vision, .* of its own: take another folder"):
        take_shipped(workshop)


def test_the_card_tells_the_numbers(workshop):
    results = json.loads((workshop.shared("refiner") / "results.json").read_text())
    card = format_card(workshop, results, 7_000_000)
    assert "7.0 MB" in card
    assert f"| shapes found | {results['shapes_found']} |" in card
    accuracy = json.loads((workshop.own("evaluation") / "results.json").read_text())["accuracy"]
    assert f"\nexistence {accuracy['existence']:.1f}, count {accuracy['count']:.1f}, " in card


def test_figures_are_drawn(workshop, tmp_path):
    model = workshop.own("stage2") / "model"
    draw_refiner(model, tmp_path / "refiner.png")
    draw_accuracy(workshop.out, tmp_path / "accuracy.png")
    draw_second_stage(workshop.out, tmp_path / "second_stage.png")
    draw_answers(model, tmp_path / "answers.png")
    draw_attention(model, tmp_path / "attention.png")
    for file in tmp_path.glob("*.png"):
        drawn = Image.open(file).convert("RGB").getcolors(1 << 24)
        assert sum(len(set(color)) > 1 for _, color in drawn) > 10, file.name  # empty axes are grey
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("rate", [0.004, 0.02])
def test_a_recipe_says_how_fast_a_part_s_matrices_learn(tmp_path, rate):
    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.table = torch.nn.Linear(6, 6, bias=False), torch.nn.Parameter(torch.zeros(6))
            self.before = self.matrix.weight.detach().clone()

        def forward(self, seen, count):
            return (self.matrix(seen).sum(-1) + seen @ self.table - count).square().mean()

    settings = {"max_steps": 1, "learning_rate": 0.05, "matrix_learning_rate": rate, "use_cpu": True, "scenes": 8}
    part = train_step(
        Part,
        StepArguments(str(tmp_path), report_to="none", eval_scenes=8, **settings),
        lambda scene, random: {"seen": random.normal(size=6).astype("f"), "count": float(len(scene.objects))},
        loss=lambda model, batch: model(batch["seen"], batch["count"].float()),
    )
    moved = torch.linalg.svdvals(part.matrix.weight.detach() - part.before)
    assert moved[0] == pytest.approx(rate, rel=0.4)  # AdamW would move its numbers by 0.05 each
    torch.testing.assert_close(part.table.detach().abs(), torch.full((6,), 0.05), rtol=1e-3, atol=0)


def test_each_grounding_query_begins_with_a_region_of_its_own():
    torch.manual_seed(0)
    mqformer = LyricsMQFormerModel(mqformer_config(50)).eval()
    mqformer.set_attn_implementation("eager")
    settle_queries(mqformer)
    regions, pixels = torch.randn(4, 12, mqformer.config.region_hidden_size), torch.randn(4, 7, 96)
    seen = mqformer(encoder_hidden_states=pixels, region_features=regions, output_grounding_attentions=True)
    weights = seen.grounding_attentions[0].mean(1)
    assert weights[:, :12].diagonal(dim1=1, dim2=2).amin() > 0.9
    assert weights[:, 12:].sum(-1).amax() < 0.3  # there is no region for them: they attend to nothing


def test_muon_is_torchs_own_in_the_dtype_of_the_weights():
    """torch's computes its updates in bfloat16 and is as close to this one as that allows."""
    ours, theirs = (torch.nn.Linear(24, 40, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = Muon([ours.weight], lr=0.02, weight_decay=0.9), torch.optim.Muon([theirs.weight], 0.02, 0.9)
    for step in range(5):
        gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=2e-3)


def test_a_part_learns_at_a_rate_of_its_own():
    model = torch.nn.ModuleDict({"mqformer": torch.nn.Linear(4, 4), "mqformers": torch.nn.Linear(4, 4)})
    optimizer = MuonWithAdamW(model, 1e-2, 0.02, rates_of={"mqformer": 0.005})
    before = {name: part.weight.detach().clone() for name, part in model.items()}
    sum(part(torch.eye(4)).pow(3).sum() for part in model.values()).backward()
    optimizer.step()
    moved = {name: torch.linalg.matrix_norm(part.weight.detach() - before[name]) for name, part in model.items()}
    assert 3 < moved["mqformers"] / moved["mqformer"] < 5


def test_a_softened_model_attends_less_surely():
    torch.manual_seed(0)
    config = language_model_config(build_micro_text_tokenizer())
    config.initializer_range = 0.3
    model = LlamaModel(config).eval()
    model.set_attn_implementation("eager")
    tokens = torch.randint(9, 300, (3, 20))
    sure = model(tokens, output_attentions=True).attentions[0]
    soften_attention(model, 0.5)
    softer = model(tokens, output_attentions=True).attentions[0]
    torch.testing.assert_close((softer * softer).div((softer * softer).sum(-1, keepdim=True)), sure)


def test_a_phase_and_the_second_stage_begin_softened(workshop):
    """Two gentle steps of a phase change weights by far less."""
    *_, before, last = workshop.settings("language")["phases"]
    weights = [
        norm_of_queries(next((workshop.shared("language") / before["name"]).glob("checkpoint-*"))),
        norm_of_queries(workshop.shared("language") / "model"),
        norm_of_queries(workshop.own("composed") / "model"),
    ]
    assert weights[1] / weights[0] == pytest.approx(last["softened"], rel=0.05)
    assert weights[2] / weights[1] == pytest.approx(0.5, rel=1e-5)


def norm_of_queries(folder):
    tensors = load_file(folder / "model.safetensors")
    queries = [tensor for name, tensor in tensors.items() if name.endswith("q_proj.weight") and "vision" not in name]
    return torch.cat([tensor.flatten() for tensor in queries]).norm()


def test_muon_goes_on_from_its_state_as_if_it_had_not_stopped():
    """Matrices get orthogonal updates, everything else AdamW's; a schedule reaches both."""

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(7, 8), torch.nn.Linear(8, 6), torch.nn.LayerNorm(6))
        return model, MuonWithAdamW(model, 1e-2, 0.02)

    def step(model, optimizer, seed):
        tokens = torch.randint(7, (5,), generator=torch.Generator().manual_seed(seed))
        model(tokens).pow(3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    (model, optimizer), (other, resumed) = make(), make()
    before = model[1].weight.detach().clone()
    step(model, optimizer, 0)
    singular = torch.linalg.svdvals(model[1].weight.detach() - before)
    assert singular[3] > singular[0] / 2  # directions learn about equally fast
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for one in (optimizer, resumed):
        torch.optim.lr_scheduler.LambdaLR(one, lambda _: 0.5)
        assert len({group["lr"] / group["initial_lr"] for group in one.param_groups}) == 1
    step(model, optimizer, 1)
    step(other, resumed, 1)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
