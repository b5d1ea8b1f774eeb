"""The MQ-Former: who sees what, and images without regions."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn

from lyrics.modeling_lyrics import LyricsMQFormerConfig, LyricsMQFormerModel

V, G = 3, 4
FLEX = pytest.param("flex_attention", marks=pytest.mark.slow)  # it compiles every shape


def build(**changes):
    settings = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_visual_queries": V,
        "num_grounding_queries": G,
        "encoder_hidden_size": 20,
        "region_hidden_size": 12,
        "initializer_range": 0.3,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    return LyricsMQFormerModel(LyricsMQFormerConfig(**settings | changes)).eval()


@pytest.fixture(scope="module", params=[{}, {"region_nothing": True}], ids=["paper", "with nothing to attend to"])
def mqformer(request):
    return build(**request.param)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return {
        "encoder_hidden_states": torch.randn(2, 7, 20),
        "region_features": torch.randn(2, 5, 12),
        "region_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "input_ids": torch.randint(1, 50, (2, 6)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]),
    }


def run(model, inputs, **changes):
    with torch.no_grad():
        return model(**inputs | changes).last_hidden_state


def test_each_set_of_queries_sees_its_own_source(mqformer, inputs):
    """Without self-attention between them, visual queries depend on pixels only, grounding queries on regions only."""
    only_self = torch.eye(V + G).expand(2, -1, -1)
    queries = {name: inputs[name] for name in ("encoder_hidden_states", "region_features", "region_attention_mask")}
    base = run(mqformer, queries, attention_mask=only_self)
    pixels = run(mqformer, queries, attention_mask=only_self, encoder_hidden_states=torch.randn(2, 7, 20))
    regions = run(mqformer, queries, attention_mask=only_self, region_features=torch.randn(2, 5, 12))
    assert torch.equal(base[:, V:], pixels[:, V:])
    assert not torch.allclose(base[:, :V], pixels[:, :V])
    assert torch.equal(base[:, :V], regions[:, :V])
    assert not torch.allclose(base[:, V:], regions[:, V:])


def test_grounding_queries_can_begin_with_a_region_each():
    """Only with `region_attention_gain`: else each begins with about the mean of all regions."""

    def largest_share(**changes):
        model = build(num_grounding_queries=16, hidden_size=128, initializer_range=0.02, **changes)
        model.set_attn_implementation("eager")
        regions, pixels = torch.randn(8, 6, 12), torch.randn(8, 7, 20)
        found = model(encoder_hidden_states=pixels, region_features=regions, output_grounding_attentions=True)
        return found.grounding_attentions[0].amax(-1).mean().item()

    assert largest_share() < 1.1 / 6
    assert largest_share(region_attention_gain=2.0) > 3 / 6


@pytest.mark.parametrize("positions", [0, 3, 8])
def test_only_the_first_regions_have_an_order(inputs, positions):
    """Swapping two regions shows where one of them, the fourth and fifth, says which it is; padding never does."""
    model = build(num_region_positions=positions)
    features, mask = inputs["region_features"], torch.ones(2, 5)
    base = run(model, inputs, region_attention_mask=mask)
    swapped = run(model, inputs, region_features=features[:, [0, 1, 2, 4, 3]], region_attention_mask=mask)
    assert torch.allclose(base, swapped, atol=1e-5) == (positions <= 3)
    swapped = run(model, inputs, region_features=features[:, [1, 0, 2, 3, 4]], region_attention_mask=mask)
    assert torch.allclose(base, swapped, atol=1e-5) == (positions == 0)
    padded = nn.functional.pad(features, (0, 0, 0, 6)), nn.functional.pad(mask, (0, 6))
    torch.testing.assert_close(base, run(model, inputs, region_features=padded[0], region_attention_mask=padded[1]))


def test_boxes_are_given_as_waves_too(inputs):
    """As if the regions had come with them: sines and cosines of half a turn, a turn and two for each side of a box."""
    boxes = torch.rand(2, 5, 4)
    features = torch.cat([inputs["region_features"][..., :8], boxes], dim=-1)
    waves = [
        function(torch.pi * 2**octave * boxes[..., side])
        for function in (torch.sin, torch.cos)
        for side in range(4)
        for octave in range(3)
    ]
    with_waves = torch.cat([features, torch.stack(waves, dim=-1)], dim=-1)
    model, wide = build(region_box_octaves=3), build(region_hidden_size=12 + 24)
    wide.load_state_dict(model.state_dict())
    ours = run(model, inputs, region_features=features)
    torch.testing.assert_close(ours, run(wide, inputs, region_features=with_waves), atol=1e-5, rtol=1e-5)


def test_a_query_that_attends_to_nothing_is_as_without_regions(inputs):
    """Once nothing's score is far above the others; what goes there is no region's."""
    model = build(region_nothing=True, num_attention_heads=1, cross_attention_frequency=3)
    model.set_attn_implementation("eager")
    attention = model.layers[0].grounding_cross_attention
    nowhere = run(model, inputs, region_features=None, region_attention_mask=None)
    shares, outputs = [], []
    for score in (-1e4, 0.0, 1e4):
        with torch.no_grad():
            attention.query.weight.zero_()
            attention.query.bias.fill_(1.0)
            attention.key_value.nothing.weight.fill_(score)
        with torch.no_grad():
            output = model(**inputs, output_grounding_attentions=True)
        outputs.append(output.last_hidden_state)
        shares.append(output.grounding_attentions[0])
    assert shares[0].shape == (2, 1, G, 5)
    torch.testing.assert_close(shares[0].sum(-1), torch.ones(2, 1, G))
    assert (shares[1].sum(-1) < 0.99).all()
    assert (shares[2] == 0).all()
    torch.testing.assert_close(outputs[2], nowhere)
    assert not torch.allclose(outputs[0], nowhere, atol=1e-3)


@pytest.mark.parametrize("name", ["num_region_positions", "region_box_octaves"])
def test_there_are_no_fewer_than_no_positions_and_waves(name):
    with pytest.raises(StrictDataclassClassValidationError, match=f"{name}=-1 is negative"):
        build(**{name: -1})


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX])
def test_padding_changes_nothing(mqformer, inputs, implementation):
    """Padded regions and text, whatever stands there, even NaN."""
    model = copy.deepcopy(mqformer)
    model.set_attn_implementation(implementation)
    base = run(model, inputs)
    alone = {name: value[:1] for name, value in inputs.items()}
    alone["region_features"], alone["region_attention_mask"] = alone["region_features"][:, :3], None
    alone["input_ids"], alone["attention_mask"] = alone["input_ids"][:, :4], None
    torch.testing.assert_close(base[:1, : V + G + 4], run(model, alone), atol=1e-5, rtol=1e-5)
    features, ids = inputs["region_features"].clone(), inputs["input_ids"].clone()
    features[0, 3:], ids[0, 4:] = float("nan"), 7
    again = run(model, inputs, region_features=features, input_ids=ids)
    assert torch.equal(base[0, : V + G + 4], again[0, : V + G + 4])
    assert torch.equal(base[1], again[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX])
def test_an_image_without_regions_has_a_zero_context(mqformer, inputs, implementation, dtype):
    """One row without regions equals no regions at all, exactly the output projection of zero."""
    model = copy.deepcopy(mqformer).to(dtype)
    model.set_attn_implementation(implementation)
    contexts = []
    block = model.layers[0].grounding_cross_attention
    hook = block.dense.register_forward_pre_hook(lambda _, args: contexts.append(args[0]))
    mask = inputs["region_attention_mask"].clone()
    mask[0] = 0
    mixed = run(model, inputs, region_attention_mask=mask)
    hook.remove()
    assert not contexts[0][0].any()
    assert contexts[0][1].any()
    assert torch.isfinite(mixed).all()
    none = run(model, inputs, region_features=None, region_attention_mask=None)
    empty = run(model, inputs, region_features=torch.zeros(2, 0, 12), region_attention_mask=torch.zeros(2, 0))
    assert torch.equal(none, empty)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(mixed[0], none[0], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradients_stay_finite_without_regions(inputs, implementation):
    model = build()
    model.set_attn_implementation(implementation)
    model(**inputs | {"region_attention_mask": torch.zeros(2, 5)}).last_hidden_state.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients["query_tokens"].abs().sum() > 0


@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_backends_agree_on_any_mask(mqformer, inputs, implementation):
    """A mask over queries and text together, with rows that may see nothing."""
    torch.manual_seed(2)
    mask = torch.rand(2, V + G + 6, V + G + 6) > 0.5
    mask[:, 2] = False
    other = copy.deepcopy(mqformer)
    other.set_attn_implementation(implementation)
    eager = copy.deepcopy(mqformer)
    eager.set_attn_implementation("eager")
    expected = run(eager, inputs, attention_mask=mask)
    torch.testing.assert_close(run(other, inputs, attention_mask=mask), expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX])
def test_a_mask_hides(mqformer, inputs, implementation):
    """What a position may not see cannot change it: text hidden from the queries, and later words from earlier."""
    model = copy.deepcopy(mqformer)
    model.set_attn_implementation(implementation)
    length = V + G + 6
    mask = torch.ones(2, length, length).tril()
    mask[:, : V + G, : V + G] = 1
    mask[:, : V + G, V + G :] = 0
    base = run(model, inputs, attention_mask=mask)
    ids = inputs["input_ids"].clone()
    ids[:, 3] = (ids[:, 3] + 1) % 50
    changed = run(model, inputs, attention_mask=mask, input_ids=ids)
    assert torch.equal(base[:, : V + G + 3], changed[:, : V + G + 3])
    assert not torch.allclose(base[:, V + G + 3 :], changed[:, V + G + 3 :])


def test_text_alone(mqformer, inputs):
    text = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "text_only": True}
    hidden = run(mqformer, text)
    assert hidden.shape == (2, 6, 32)
    assert torch.equal(hidden, run(mqformer, text, encoder_hidden_states=inputs["encoder_hidden_states"]))


def test_positions_can_be_given(mqformer, inputs):
    positions = torch.arange(6).expand(2, -1)
    assert torch.equal(run(mqformer, inputs), run(mqformer, inputs, position_ids=positions))
    assert not torch.allclose(run(mqformer, inputs), run(mqformer, inputs, position_ids=positions + 1))


@pytest.mark.parametrize(("visual", "grounding"), [(V, 0), (0, G)])
def test_one_set_of_queries_only(inputs, visual, grounding):
    """The model without a refiner is a configuration."""
    model = build(num_visual_queries=visual, num_grounding_queries=grounding)
    names = {name.split(".")[2] for name, _ in model.named_parameters() if name.startswith("layers.0.")}
    assert ("visual_cross_attention" in names, "grounding_cross_attention" in names) == (visual > 0, grounding > 0)
    needed = {"input_ids": inputs["input_ids"]}
    needed |= {"encoder_hidden_states": inputs["encoder_hidden_states"]} if visual else {}
    needed |= {"region_features": inputs["region_features"]} if grounding else {}
    assert run(model, needed).shape == (2, visual + grounding + 6, 32)


def test_hidden_states_and_attentions(mqformer, inputs):
    model = copy.deepcopy(mqformer)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True, output_grounding_attentions=True)
    assert [tuple(hidden.shape) for hidden in output.hidden_states] == [(2, V + G + 6, 32)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 4, V + G + 6, V + G + 6)] * 3
    assert [tuple(weights.shape) for weights in output.cross_attentions] == [(2, 4, V, 7)] * 2
    assert [tuple(weights.shape) for weights in output.grounding_attentions] == [(2, 4, G, 5)] * 2
    assert not output.grounding_attentions[0][0, :, :, 3:].any()
    to_regions = output.grounding_attentions[1].sum(-1)
    if model.config.region_nothing:
        assert (to_regions < 1).all()
    else:
        torch.testing.assert_close(to_regions, torch.ones(2, 4, G))


def test_gradient_checkpointing_changes_nothing(inputs):
    losses = []
    for checkpointing in (False, True):
        model = build().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        loss = model(**inputs).last_hidden_state.square().mean()
        loss.backward()
        losses.append((loss.item(), model.query_tokens.grad.clone()))
    assert losses[0][0] == losses[1][0]
    torch.testing.assert_close(losses[0][1], losses[1][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_hidden_states": None}, "3 visual queries need encoder_hidden_states"),
        ({"region_features": torch.zeros(2, 5, 13)}, "width 13, but this MQ-Former attends to regions of width 12"),
        ({"query_embeds": torch.zeros(1, 5, 32)}, "query_embeds has 5 queries, the model 7"),
        ({"attention_mask": torch.ones(2, 5)}, "covers 5 text positions; input_ids has 6"),
        ({"input_ids": torch.ones(2, 600, dtype=torch.long), "attention_mask": None}, "600 tokens, .* 512 only"),
        (
            {"position_ids": torch.arange(507, 513)[None]},
            r"position_ids must be in \[0, 511\], but range from 507 to 512",
        ),
        ({"input_ids": torch.full((2, 6), 50)}, r"input_ids must be in \[0, 49\], but range from 50 to 50"),
        ({"input_ids": torch.full((2, 6), -1)}, "range from -1 to -1"),
        ({"input_ids": None, "text_only": True}, "text_only=True needs input_ids"),
    ],
)
def test_mistakes_are_named(mqformer, inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        mqformer(**inputs | changes)


@pytest.mark.parametrize(
    "settings",
    [{"hidden_size": 30}, {"num_visual_queries": 0, "num_grounding_queries": 0}, {"num_visual_queries": -1}],
)
def test_impossible_sizes_are_refused(settings):
    with pytest.raises(Exception, match="LyricsMQFormerConfig"):
        LyricsMQFormerConfig(**settings)


def test_flash_attention_is_refused(inputs):
    """It would drop the masks without a word."""
    with pytest.raises((ValueError, ImportError)):
        build(attn_implementation="flash_attention_2")


def test_save_and_load(mqformer, inputs, tmp_path):
    """Learned queries included."""
    mqformer.save_pretrained(tmp_path)
    assert torch.equal(run(LyricsMQFormerModel.from_pretrained(tmp_path), inputs), run(mqformer, inputs))


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX])
@pytest.mark.parametrize("kept", ["queries", "text"])
def test_a_part_is_computed_as_beside_the_other(mqformer, inputs, kept, implementation):
    model = copy.deepcopy(mqformer)
    model.set_attn_implementation(implementation)
    length = V + G + inputs["input_ids"].shape[1]
    rows_differ = torch.ones(length, length).tril().expand(2, -1, -1)  # each position sees those before it
    inputs = inputs | {"attention_mask": rows_differ}
    whole = run(model, inputs)
    part = run(model, inputs, kept=kept)
    torch.testing.assert_close(part, whole[:, : V + G] if kept == "queries" else whole[:, V + G :])
    no_text = inputs | {"input_ids": None, "attention_mask": None}
    torch.testing.assert_close(run(model, no_text, kept="queries"), run(model, no_text))
