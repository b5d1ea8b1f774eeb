"""LyricsForPreTraining: who sees whom, what is computed and what is not, edge cases, and that each objective learns."""

import copy
import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.modeling_lyrics import LyricsForPreTraining, LyricsPreTrainingConfig, mqformer_length_groups
from lyrics.modeling_lyrics.mqformer_attention_masks import (
    CAPTIONING,
    CONTRASTIVE,
    MATCHING,
    SPATIAL,
    C,
    G,
    S,
    Segment,
    SegmentedText,
    V,
    run_mqformer,
)
from lyrics.trainers import LyricsPretrainingCollator

from ..pretraining_parts import QUERIES, REGION_WIDTH, build_config, build_model, build_processor, build_row, build_rows

TABLES = {"itc": CONTRASTIVE, "itm": MATCHING, "icg": CAPTIONING, "msp": SPATIAL}
# what an input can reach in the end, through any number of layers: DESIGN's table, closed
REACHES = {
    "itc": {V: {V, G}, G: {V, G}, S: {S, C}, C: {S, C}},
    "itm": {V: {V, C}, G: {G, S}, S: {G, S}, C: {V, C}},
    "icg": {V: {V, G, C}, G: {V, G, C}, C: {C}},
    "msp": {segment: {V, G, S, C} for segment in (V, G, S, C)},
}
LOSSES = ("loss", "loss_itc", "loss_itm", "loss_icg", "loss_msp")


@pytest.fixture(scope="module")
def collator():
    return LyricsPretrainingCollator(build_processor(), seed=3)


@pytest.fixture(scope="module")
def model():
    return build_model(std=0.3).eval()


@pytest.fixture(scope="module")
def batch(collator):
    return make_batch(collator, build_rows(5))


def make_batch(collator, rows):
    batch = collator(rows)
    del batch["samples"]
    return batch


def losses(output):
    return {name: getattr(output, name) for name in LOSSES if getattr(output, name) is not None}


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_same(first, second, tolerance=1e-5):
    torch.testing.assert_close(first, second, atol=tolerance, rtol=tolerance)


# ------------------------------------------------------------------------------------------------- who sees whom


def project(model, vision, regions):
    mask = torch.ones(regions.shape[:2])
    return model.model.mqformer(
        encoder_hidden_states=vision, region_features=regions, region_attention_mask=mask, project_only=True
    ).image_key_values


FLEX = pytest.param("flex_attention", marks=pytest.mark.slow)  # it compiles every shape


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX])
@pytest.mark.parametrize("objective", TABLES)
@torch.no_grad()
def test_nothing_reaches_what_must_not_see_it(model, objective, implementation):
    """Change one input; exactly the states that it may reach change, in every backend."""
    other = copy.deepcopy(model)
    other.set_attn_implementation(implementation)
    torch.manual_seed(0)
    segments = torch.tensor([[S, S, S, C, C, C, C, 0] if objective != "icg" else [C, C, C, C, C, 0, 0, 0]] * 2)
    ids = torch.randint(103, 1000, segments.shape)
    inputs = {"vision": torch.randn(2, 5, 16), "regions": torch.randn(2, 3, REGION_WIDTH), "ids": ids}

    def run(vision, regions, ids, model=other):
        text = SegmentedText(ids, torch.arange(8).expand(2, -1), segments)
        images = project(model, vision, regions)
        if objective == "itc":
            queries, _ = run_mqformer(model.model.mqformer, CONTRASTIVE, None, images)
            _, words = run_mqformer(model.model.mqformer, CONTRASTIVE, text)
        else:
            queries, words = run_mqformer(model.model.mqformer, TABLES[objective], text, images)
        return torch.cat([queries, words], dim=1)

    before = run(**inputs)
    torch.testing.assert_close(before, run(**inputs, model=model), atol=1e-4, rtol=1e-4)
    where = torch.cat([torch.tensor([[V] * QUERIES[0] + [G] * QUERIES[1]] * 2), segments], dim=1)
    changes = {V: ("vision", slice(None)), G: ("regions", slice(None))}
    changes |= {segment: ("ids", segments[0] == segment) for segment in (S, C) if segment in REACHES[objective]}
    for source, (name, places) in changes.items():
        changed = {key: value.clone() for key, value in inputs.items()}
        changed[name][:, places] = changed[name][:, places].flip(0) + (1 if name == "ids" else 0)
        differs = (run(**changed) != before).any(-1)
        reached = torch.stack([where == segment for segment in REACHES[objective][source]]).any(0)
        assert torch.equal(differs, reached), f"{source.name} reaches {where[differs].unique().tolist()}"
    changed = inputs | {"ids": ids.masked_fill(segments == Segment.PADDING, 500)}
    assert torch.equal(run(**changed)[where > 0], before[where > 0]), "padding is seen"


@torch.no_grad()
def test_a_caption_sees_no_later_word(model):
    ids = torch.randint(103, 1000, (1, 6))
    images = project(model, torch.randn(1, 5, 16), torch.randn(1, 3, REGION_WIDTH))
    states = []
    for changed in (ids, ids.index_fill(1, torch.tensor([3]), 999)):
        text = SegmentedText(changed, torch.arange(6)[None], torch.full((1, 6), int(C)))
        states.append(run_mqformer(model.model.mqformer, CAPTIONING, text, images)[1])
    assert torch.equal((states[0] != states[1]).any(-1)[0], torch.tensor([False] * 3 + [True] * 3))


# ------------------------------------------------------------------------------------------------- what is computed


def count_calls(modules, run):
    calls = []
    hooks = [module.register_forward_hook(lambda module, args, output: calls.append(args)) for module in modules]
    run()
    for hook in hooks:
        hook.remove()
    return calls


def test_keys_and_values_are_projected_once(model, batch):
    """Whatever the number of passes and of rows, for the images of the batch and no others."""
    modules = dict(model.model.mqformer.named_modules())
    projections = [modules[name] for name in modules if name.endswith("cross_attention.key_value")]
    calls = count_calls(projections, lambda: model(**batch))
    assert len(calls) == len(projections) > 0
    assert all(len(states) == 5 for (states,) in calls)


def test_the_head_runs_where_there_are_labels(model, batch):
    calls = count_calls([model.lm_head], lambda: model(**batch))
    assert [states.shape[0] for (states,) in calls] == [len(batch["caption_labels"]), len(batch["masked_labels"])]


@pytest.mark.parametrize(
    ("weights", "passes"),
    [
        ({}, 5),  # projection, queries with caption, text, matching, masked
        ({"msp_weight": 0}, 4),
        ({"icg_weight": 0}, 5),
        ({"itm_weight": 0}, 4),
        ({"itc_weight": 0}, 4),
        ({"itc_weight": 0, "itm_weight": 0, "icg_weight": 0}, 2),
        ({"itm_weight": 0, "icg_weight": 0, "msp_weight": 0}, 3),
    ],
)
def test_an_objective_without_weight_costs_nothing(batch, weights, passes, monkeypatch):
    """No pass, no head, no need for its inputs; and the others are as they were."""
    monkeypatch.setitem(mqformer_length_groups.ROWS_OF_A_GROUP, "cpu", 100)  # one call a pass
    model, full = build_model(std=0.3, **weights).eval(), build_model(std=0.3).eval()
    model.load_state_dict(full.state_dict(), strict=False)
    calls = count_calls([model.model.mqformer], lambda: model(**batch))
    assert len(calls) == passes
    missing = {"itc": "contrastive.", "itm": "matching.", "icg": "captioning.", "msp": "spatial."}
    for name in [name for name in missing if weights.get(f"{name}_weight") == 0]:
        assert not [parameter for parameter in model.state_dict() if parameter.startswith(missing[name])]
    output, expected = losses(model(**batch)), losses(full(**batch))
    total = output.pop("loss")
    torch.testing.assert_close(total, sum(output.values()), atol=1e-6, rtol=1e-6)
    if "itc_weight" not in weights:  # without similarities other negatives are drawn
        assert_same(output, {name: expected[name] for name in output})


def test_weights_weigh(batch):
    model = build_model(std=0.3, itc_weight=2.0, icg_weight=0.5).eval()
    output = losses(model(**batch))
    expected = 2 * output["loss_itc"] + output["loss_itm"] + 0.5 * output["loss_icg"] + output["loss_msp"]
    torch.testing.assert_close(output["loss"], expected)


def test_losses_of_rows_are_the_losses(model):
    """The terms of all rows have the loss as their mean, and a row's caption has its own number of words."""
    batch = make_batch(LyricsPretrainingCollator(build_processor(), mask_probability=0.5), build_rows(5))
    output = model(**batch)
    assert list(output.row_losses) == ["loss_icg", "loss_itc", "loss_itm", "loss_msp"]
    for name, rows in output.row_losses.items():
        assert rows.shape == (5, 2)
        total, count = rows.sum(0).tolist()
        assert total / count == pytest.approx(output[name].item(), rel=1e-5)
    words = batch["caption_segment_ids"].bool().sum(1) - 1
    assert output.row_losses["loss_icg"][:, 1].tolist() == words.tolist()
    assert output.row_losses["loss_itm"][:, 1].tolist() == [3] * 5


def test_texts_without_objects(model, batch):
    """Contrast and matching see what they would see of texts that never had objects; the other losses do not change."""
    some = torch.tensor([True, False, True, False, False])
    output = model(**batch, caption_only=some)
    words = SegmentedText(batch["input_ids"], batch["position_ids"], batch["segment_ids"])
    shortened = words.without_objects(some)
    assert torch.equal(shortened.have_objects(), ~some & words.have_objects())
    image = {name: batch[name] for name in ("pixel_values", "region_features", "region_attention_mask")}

    def never_had(row):
        """The text of a row, without the tokens of its objects rather than with padding in their place."""
        first, caption = (words.segment_ids[row] == S.value).nonzero()[0], words.segment_ids[row] == C.value
        kept = torch.cat([first, caption.nonzero()[:, 0]]) if some[row] else words.segment_ids[row].nonzero()[:, 0]
        return {name: tensor[row : row + 1, kept] for name, tensor in vars(words).items()}

    def matching_loss(picture, text, matches):
        features = {name: tensor[picture : picture + 1] for name, tensor in image.items()}
        return -model.match(**features, **never_had(text)).logits.log_softmax(dim=-1)[0, int(matches)]

    features = model.get_text_features(**vars(shortened)).pooler_output
    for row in range(5):
        torch.testing.assert_close(features[row], model.get_text_features(**never_had(row)).pooler_output[0])
        pairs = [(row, row, True), (output.negative_images[row], row, False), (row, output.negative_texts[row], False)]
        expected = sum(matching_loss(int(picture), int(text), matches) for picture, text, matches in pairs)
        torch.testing.assert_close(output.row_losses["loss_itm"][row, 0], expected.detach())
    unchanged, everything = model(**batch), model(**batch, caption_only=~some & some)
    for name in ("loss_icg", "loss_msp"):
        torch.testing.assert_close(output[name], unchanged[name])
    torch.testing.assert_close(everything.loss_itc, unchanged.loss_itc)
    assert output.loss_itc != unchanged.loss_itc


def test_without_refiner(collator):
    """A configuration: visual queries, three objectives, no spatial text; BLIP-2's recipe."""
    without = LyricsPretrainingCollator(build_processor(), use_objects=False)
    batch = make_batch(without, build_rows(4))
    assert not [name for name in batch if name.startswith(("region", "masked"))]
    model = build_model(std=0.3, queries=(3, 0))
    output = model(**batch)
    assert losses(output).keys() == {"loss", "loss_itc", "loss_itm", "loss_icg"}
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_every_trained_weight_has_a_gradient(model, batch, collator):
    """Also where no image has any object, and where nothing is masked: no rank may leave another waiting."""
    for rows in (build_rows(5), [build_row(seed, objects=0) for seed in range(3)]):
        model = copy.deepcopy(model).train()
        assert not model.model.vision_model.training, "frozen, so that it stays in evaluation mode"
        output = model(**make_batch(collator, rows))
        output.loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
    assert output.loss_msp == 0
    assert output.metric_counts["masked_label_accuracy"] == 0


# ------------------------------------------------------------------------------------------------- invariances


@settings(max_examples=25)
@given(words=st.integers(0, 5), captions=st.integers(0, 3), regions=st.integers(0, 3))
def test_padding_changes_nothing(model, batch, words, captions, regions):
    """Whatever the padding of regions holds."""
    padded = dict(batch)
    for name in ("input_ids", "position_ids", "segment_ids", "masked_input_ids"):
        padded[name] = torch.nn.functional.pad(batch[name], (0, words))
    for name in ("caption_input_ids", "caption_segment_ids"):
        padded[name] = torch.nn.functional.pad(batch[name], (0, captions))
    for name, added in (("caption", captions), ("masked", words)):
        length = batch["caption_input_ids" if name == "caption" else "input_ids"].shape[1]
        positions = batch[f"{name}_positions"]
        padded[f"{name}_positions"] = positions // length * (length + added) + positions % length
    padded["region_features"] = torch.nn.functional.pad(batch["region_features"], (0, 0, 0, regions), value=torch.nan)
    padded["region_attention_mask"] = torch.nn.functional.pad(batch["region_attention_mask"], (0, regions))
    with torch.no_grad():
        assert_same(losses(model(**padded)), losses(model(**batch)))


def test_order_of_rows(model, collator):
    """What a row says does not depend on its place; only negatives are drawn by the order of the batch."""
    rows = [collator.prepare(row, str(index)) for index, row in enumerate(build_rows(6))]
    with torch.no_grad():
        first, second = model(**make_batch(collator, rows)), model(**make_batch(collator, rows[::-1]))
    for name in ("loss_itc", "loss_icg", "loss_msp", "recall_image_to_text", "caption_accuracy"):
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=1e-5)


def test_backends_agree(model, batch):
    """Flex attention is compared above."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    with torch.no_grad():
        assert_same(losses(other(**batch)), losses(model(**batch)), 1e-4)


@pytest.mark.parametrize("recomputation", ["none", "matching"])
def test_compiled_equals_eager(model, batch, recomputation):
    """In one graph, gradients included."""
    with torch.no_grad():
        model(**batch)  # on first use Transformers installs hooks under a lock, which cannot be compiled
    eager, compiled = copy.deepcopy(model), copy.deepcopy(model)
    compiled.set_recomputation(recomputation)
    expected, output = eager(**batch), torch.compile(compiled, fullgraph=True, backend="eager")(**batch)
    assert_same(losses(output), losses(expected))
    expected.loss.backward()
    output.loss.backward()
    assert_same(gradients(compiled), gradients(eager))


def test_gradient_checkpointing_changes_nothing(batch):
    results = []
    for checkpointing in (False, True):
        model = build_model(std=0.3, dropout=0.1).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # of the dropout
        output = model(**batch)
        output.loss.backward()
        results.append(gradients(model))
    assert_same(*results)


def kept_bytes(run):
    """Return the result of `run`, and the bytes that it keeps for its backward pass."""
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return run(), sum(sizes.values())


def test_recomputation_changes_nothing_but_memory(batch):
    """Losses and gradients, with dropout, and with the same draws afterwards."""
    results, memory = [], []
    for recomputation in ("none", "feed_forward", "matching"):
        model = build_model(std=0.3, dropout=0.1).train()
        model.set_recomputation(recomputation)
        torch.manual_seed(0)
        output, kept = kept_bytes(lambda model=model: model(**batch))
        output.loss.backward()
        results.append((losses(output), gradients(model), torch.rand(3)))
        memory.append(kept)
    assert_same(results[1], results[0], 1e-6)
    assert_same(results[2], results[0], 1e-6)
    assert memory[0] > memory[1] > memory[2]
    with pytest.raises(ValueError, match=r"recomputation must be one of .*, got 'all'"):
        model.set_recomputation("all")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_extreme_inputs_stay_numbers(model, batch, dtype):
    half = copy.deepcopy(model).to(dtype)
    extreme = batch | {
        "pixel_values": batch["pixel_values"].sign() * 1e3,
        "region_features": batch["region_features"].sign() * 1e4,
    }
    output = half(**extreme)
    output.loss.backward()
    assert all(torch.isfinite(value) for value in losses(output).values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters() if parameter.grad is not None)


def test_groups_of_similar_length_change_nothing(model, collator, monkeypatch):
    """Losses and gradients are those of all rows together; each group is as long as its longest text."""
    batch, results, lengths = make_batch(collator, build_rows(6)), [], []
    for rows in (100, 2):
        monkeypatch.setitem(mqformer_length_groups.ROWS_OF_A_GROUP, "cpu", rows)
        grouped = copy.deepcopy(model)
        hook = grouped.model.mqformer.embeddings.register_forward_hook(
            lambda module, args, output: lengths.append(output.shape)
        )
        output = grouped(**batch)
        hook.remove()
        output.loss.backward()
        results.append((losses(output), gradients(grouped), dict(output.row_losses)))
    assert_same(*results)
    assert len(lengths) == 4 + 3 + 3 + 4 + 3  # one call a pass; then groups of 6, 6, 18 and 6 rows
    padded, grouped = (sum(rows * length for rows, length, _ in part) for part in (lengths[:4], lengths[4:]))
    assert grouped < 0.8 * padded


# ------------------------------------------------------------------------------------------------- edge cases


def test_one_row(model, collator):
    """No negative exists; the right pair is still learned, and nothing is NaN."""
    output = model(**make_batch(collator, [build_row(3)]))
    assert all(torch.isfinite(value) for value in losses(output).values())
    assert output.loss_itc == 0
    assert output.metric_counts["matching_accuracy"] == 1


def test_equal_pairs_are_no_negatives(model, collator):
    """Neither of two equal captions, nor of two equal images, is ever drawn for the other."""
    rows = build_rows(6)
    rows[1]["caption"] = f"  {rows[0]['caption'].upper()}"
    rows[3]["image"] = rows[2]["image"]
    batch = make_batch(collator, rows)
    same = {0: {0, 1}, 1: {0, 1}, 2: {2, 3}, 3: {2, 3}, 4: {4}, 5: {5}}
    for draw in torch.linspace(0, 1, 30):
        batch["negative_draws"] = torch.full((6, 2), draw)
        with torch.no_grad():
            output = model(**batch)
        for negatives in (output.negative_images, output.negative_texts):
            assert all(negative not in same[row] for row, negative in enumerate(negatives.tolist()))
    equal = [build_row(0)] * 3
    output = model(**make_batch(collator, equal))
    assert all(torch.isfinite(value) for value in losses(output).values())
    assert output.loss_itc == 0, "all pairs are the same pair"
    assert output.recall_image_to_text == 1


def test_negatives_follow_similarity(model):
    """The most similar wrong column is drawn the most often, and the positive never."""
    similarity = torch.tensor([[9.0, 3.0, 0.0, 1.0]])
    same = torch.tensor([[True, False, False, False]])
    drawn = [int(model.matching.draw_negatives(similarity, same, torch.tensor([draw]))[0]) for draw in torch.rand(500)]
    counts = [drawn.count(column) for column in range(4)]
    assert counts[0] == 0
    assert counts[1] > counts[3] > counts[2] > 0


def test_values_at_the_start(collator):
    """Sanity values: ITM near ln 2, captions and masked items near ln of the vocabulary, ITC near ln of the batch."""
    model = build_model().eval()
    output = model(**make_batch(collator, build_rows(8)))
    vocabulary = model.config.mqformer_config.vocab_size
    assert abs(output.loss_itm - math.log(2)) < 0.1
    assert abs(output.loss_icg - math.log(vocabulary)) < 0.3
    assert abs(output.loss_msp - math.log(vocabulary)) < 0.3
    assert abs(output.loss_itc - math.log(8)) < 1.5
    for projection in (model.contrastive.vision_projection, model.contrastive.text_projection):
        torch.nn.init.zeros_(projection.weight)
        torch.nn.init.ones_(projection.bias)
    torch.testing.assert_close(model(**make_batch(collator, build_rows(8))).loss_itc, torch.tensor(math.log(8)))


@pytest.mark.parametrize("objective", TABLES)
def test_an_objective_learns_a_batch(collator, objective):
    weights = {f"{name}_weight": float(name == objective) for name in TABLES}
    collator = copy.copy(collator)
    collator.mask_probability = 0.5
    rows = [build_row(seed, objects=2) for seed in range(4)]
    batch = make_batch(collator, rows)
    model = build_model(std=0.1, label_smoothing=0.0, **weights).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        output = model(**batch)
        if output.loss < 0.05:
            break
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.loss < 0.05
    accuracies = {name: getattr(output, name) for name, count in output.metric_counts.items() if count}
    assert all(value == 1 for value in accuracies.values()), accuracies


# ------------------------------------------------------------------------------------------------- input and files


def test_missing_inputs_are_named(model, batch):
    with pytest.raises(ValueError, match=r"spatial lacks masked_labels, masked_items.*LyricsPretrainingCollator"):
        model(**{name: value for name, value in batch.items() if name not in ("masked_labels", "masked_items")})
    with pytest.raises(ValueError, match="model lacks pixel_values, input_ids"):
        model()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itc_weight": -1.0}, "must not be negative"),
        ({"itc_weight": 0.0, "itm_weight": 0.0, "icg_weight": 0.0, "msp_weight": 0.0}, "nor all 0"),
        ({"queries": (3, 0), "msp_weight": 1.0}, "without grounding queries there is no spatial text"),
    ],
)
def test_impossible_weights(changes, message):
    with pytest.raises(Exception, match=message):
        build_config(**changes)


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load(batch, tmp_path, tied):
    model = build_model(std=0.3, tie_word_embeddings=tied).eval()
    assert (model.lm_head.decoder.weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path, max_shard_size="50kB")
    again, report = LyricsForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert (again.lm_head.decoder.weight is again.get_input_embeddings().weight) == tied
    assert torch.equal(again(**batch).loss, model(**batch).loss)
    fewer = LyricsPreTrainingConfig.from_pretrained(tmp_path, itm_weight=0.0)
    _, report = LyricsForPreTraining.from_pretrained(tmp_path, config=fewer, output_loading_info=True)
    assert not any(report.values()), "a head that is not wanted is not missed"


def test_from_parts(model, batch):
    """Pretrained parts are used as they are, heads are new; the MQ-Former flows into the second stage by name."""
    parts = model.model
    built = LyricsForPreTraining.from_parts(parts.vision_model, parts.mqformer, projection_size=16)
    assert built.model.vision_model is parts.vision_model
    assert built.model.mqformer is parts.mqformer
    assert built.lm_head.decoder.weight is parts.mqformer.embeddings.word_embeddings.weight
    assert all(not parameter.is_meta for parameter in built.parameters())
    assert 0 < built.matching.head.weight.std() < 0.1
    assert math.isclose(built.contrastive.temperature.item(), 0.07, rel_tol=1e-6)
    assert not built.training
    output = built(**batch)
    assert all(torch.isfinite(value) for value in losses(output).values())


def test_new_heads_have_the_dtype_of_the_mqformer():
    parts = build_model().to(torch.bfloat16).model
    built = LyricsForPreTraining.from_parts(parts.vision_model, parts.mqformer, projection_size=16)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.bfloat16}
    built = LyricsForPreTraining.from_parts(parts.vision_model, parts.mqformer.config, projection_size=16)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_standard_deviation_is_checked(value):
    with pytest.raises(StrictDataclassError, match="initializer_range"):
        build_config(initializer_range=value)
    assert build_config(initializer_range=0).initializer_range == 0
