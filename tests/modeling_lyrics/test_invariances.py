"""What must not change a result: the company of other rows, padding, order, backend, cache, placement, precision."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.modeling_lyrics import LyricsForConditionalGeneration

GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


@dataclass
class Picture:
    """An image with its objects and the words that the MQ-Former reads beside it, all random."""

    seed: int
    objects: int
    words: int

    def tensors(self):
        generator = torch.Generator().manual_seed(self.seed)
        return {
            "pixel_values": torch.randn(3, 64, 64, generator=generator),
            "region_features": torch.randn(self.objects, 36, generator=generator),
            "mqformer_input_ids": torch.randint(103, 1000, (self.words,), generator=generator),
        }


@dataclass
class Row:
    """A prompt of some words, with images after the first of them."""

    seed: int
    words: int
    images: list[Picture] = field(default_factory=list)

    def ids(self, placeholder):
        words = torch.randint(3, 250, (self.words,), generator=torch.Generator().manual_seed(self.seed))
        return torch.cat([words[:1], torch.full((24 * len(self.images),), placeholder), words[1:]])


pictures = st.builds(Picture, seed=st.integers(0, 99), objects=st.integers(0, 6), words=st.integers(1, 7))
rows = st.builds(Row, seed=st.integers(0, 99), words=st.integers(2, 9), images=st.lists(pictures, max_size=2))
batches = st.lists(rows, min_size=1, max_size=4)
paddings = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3))  # of prompts, objects, MQ-Former text


def stack(tensors, side, extra):
    """Tensors of different lengths -> one padded tensor and its mask."""
    length = max(map(len, tensors)) + extra
    padded = tensors[0].new_zeros(len(tensors), length, *tensors[0].shape[1:])
    mask = torch.zeros(len(tensors), length, dtype=torch.long)
    for index, tensor in enumerate(tensors):
        place = slice(length - len(tensor), length) if side == "left" else slice(0, len(tensor))
        padded[index, place], mask[index, place] = tensor, 1
    return padded, mask


def collate(batch, placeholder, side="left", padding=(0, 0, 0)):
    """Rows -> the inputs of a model."""
    inputs = {}
    inputs["input_ids"], inputs["attention_mask"] = stack([row.ids(placeholder) for row in batch], side, padding[0])
    images = [image.tensors() for row in batch for image in row.images]
    if images:
        inputs["pixel_values"] = torch.stack([image["pixel_values"] for image in images])
        for name, mask, extra in (
            ("region_features", "region_attention_mask", padding[1]),
            ("mqformer_input_ids", "mqformer_attention_mask", padding[2]),
        ):
            inputs[name], inputs[mask] = stack([image[name] for image in images], "right", extra)
    return inputs


def labels_of(inputs):
    return inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)


def forward(model, inputs, **changes):
    with torch.no_grad():
        return model(**inputs | changes)


def with_attention(model, implementation):
    model = copy.deepcopy(model)
    model.set_attn_implementation(implementation)
    return model


@pytest.fixture(scope="module")
def placeholder(model):
    return model.config.image_token_id


@pytest.fixture(scope="module")
def batch(placeholder):
    """Prompts with two, no and one image, one of them without objects, padded everywhere."""
    mixed = [Row(0, 6, [Picture(0, 3, 4), Picture(1, 0, 2)]), Row(1, 4), Row(2, 9, [Picture(2, 5, 6)])]
    return collate(mixed, placeholder, padding=(3, 2, 1))


# ------------------------------------------------------------------------------------ the company of other rows


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@settings(max_examples=60)
@given(batch=batches, side=st.sampled_from(["left", "right"]), padding=paddings)
def test_forward_of_a_batch_is_that_of_its_rows(model, placeholder, implementation, batch, side, padding):
    """Any rows, in any order, with any padding on either side; logits and loss."""
    model = model if implementation == "sdpa" else with_attention(model, implementation)
    inputs = collate(batch, placeholder, side, padding)
    together = forward(model, inputs, labels=labels_of(inputs))
    losses, counts = [], []
    for index, row in enumerate(batch):
        single = collate([row], placeholder)
        alone = forward(model, single, labels=single["input_ids"])
        real = together.logits[index][inputs["attention_mask"][index] == 1]
        torch.testing.assert_close(real, alone.logits[0], atol=1e-4, rtol=1e-4)
        losses.append(alone.loss)
        counts.append((single["input_ids"][0, 1:] != placeholder).sum())
    mean = (torch.stack(losses) * torch.stack(counts)).sum() / sum(counts)
    torch.testing.assert_close(together.loss, mean, atol=1e-4, rtol=1e-4)


@settings(max_examples=40)
@given(batch=batches, padding=paddings)
def test_generation_of_a_batch_is_that_of_its_rows(model, placeholder, batch, padding):
    """The same tokens, whatever else is in the batch."""
    inputs = collate(batch, placeholder, "left", padding)
    together = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    for index, row in enumerate(batch):
        single = collate([row], placeholder)
        alone = model.generate(**single, **GREEDY)[:, single["input_ids"].shape[1] :]
        assert torch.equal(together[index], alone[0])


def test_a_row_of_nothing_but_padding_harms_no_other(model, batch):
    """Its own numbers mean nothing, but they are numbers."""
    padded = {name: batch[name].repeat(2, *[1] * (batch[name].dim() - 1)) for name in ("input_ids", "attention_mask")}
    padded["input_ids"][3:], padded["attention_mask"][3:] = 0, 0
    images = {name: value for name, value in batch.items() if name not in padded}
    output = forward(model, padded | images)
    assert torch.isfinite(output.logits).all()
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(output.logits[:3][real], forward(model, batch).logits[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_no_image_has_any_object(model, placeholder, train):
    """Forward, backward and generation."""
    model = copy.deepcopy(model).train(train)
    inputs = collate([Row(0, 5, [Picture(0, 0, 3)]), Row(1, 7, [Picture(1, 0, 2)])], placeholder)
    loss = model(**inputs, labels=labels_of(inputs)).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert model.eval().generate(**inputs, **GREEDY).shape == (2, inputs["input_ids"].shape[1] + 5)


# ------------------------------------------------------------------------------------ backends and compilation


@pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
def test_attention_backends_agree(model, batch, implementation):
    """With padding everywhere, and an image without objects."""
    real = batch["attention_mask"] == 1
    other = forward(with_attention(model, implementation), batch).logits[real]
    torch.testing.assert_close(other, forward(model, batch).logits[real], atol=1e-4, rtol=1e-4)


def test_compiled_equals_eager(model, batch):
    """In one graph, in whatever order the parts come."""
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(
        forward(compiled, batch).logits[real], forward(model, batch).logits[real], atol=1e-4, rtol=1e-4
    )


def test_a_prompt_with_images_is_one_graph(model, batch):
    """Also where Dynamo may not read values of tensors, as without `fullgraph`; the check of placeholders is inside.

    The model has run before: on its first call Transformers takes a lock, which ends a graph.
    """
    graphs, expected = [], forward(model, batch)

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(copy.deepcopy(model), backend=keep)
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(forward(compiled, batch).logits[real], expected.logits[real])
    assert len(graphs) == 1
    one_less = batch["input_ids"].clone()
    one_less[0, (one_less[0] == model.config.image_token_id).nonzero()[0]] = 5
    with pytest.raises(RuntimeError, match="Image features and image tokens do not match"):
        forward(compiled, batch, input_ids=one_less)


# ------------------------------------------------------------------------------------ training


def test_gradient_checkpointing_changes_nothing(model, batch):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)  # of the dropout
        trained = copy.deepcopy(model).train()
        if checkpointing:
            trained.activation_checkpointing_enable()
        loss = trained(**batch, labels=labels_of(batch)).loss
        loss.backward()
        gradients = {name: value.grad for name, value in trained.named_parameters() if value.grad is not None}
        results.append((loss, gradients))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, msg=name)


@pytest.mark.parametrize("part", ["vision_model", "mqformer", "language_model"])
def test_training_wakes_no_frozen_part(model, part):
    model = copy.deepcopy(model)
    frozen = getattr(model.model, part).requires_grad_(False)
    model.train()
    assert not any(module.training for module in frozen.modules())
    others = {"vision_model", "mqformer", "language_model"} - {part}
    assert all(getattr(model.model, other).training for other in others)
    frozen.requires_grad_(True)
    assert all(module.training for module in model.train().modules())
    assert not any(module.training for module in model.eval().modules())


def test_a_frozen_language_model_can_still_recompute(model, batch):
    """Gradients pass through it, so gradient checkpointing must reach it."""
    model = copy.deepcopy(model)
    model.model.language_model.requires_grad_(False)
    model.activation_checkpointing_enable()
    model.train()
    assert model.model.language_model.layers[0].training
    model(**batch, labels=labels_of(batch)).loss.backward()
    assert model.model.language_projection.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------ precision and placement


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_extreme_inputs_stay_numbers(model, batch, implementation, dtype):
    """Pixels of a thousand, region features of ten thousand, an image without objects, a row of padding."""
    half = with_attention(model, implementation).to(dtype)
    extreme = dict(batch)
    extreme["region_features"] = batch["region_features"].sign() * 1e4
    extreme["pixel_values"] = batch["pixel_values"].sign() * 1e3
    extreme["attention_mask"] = batch["attention_mask"].clone()
    extreme["attention_mask"][1] = 0
    output = forward(half, extreme)
    assert output.logits.dtype == dtype
    assert torch.isfinite(output.logits).all()
    assert torch.isfinite(output.image_hidden_states).all()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder, max_shard_size="2MB")
    return folder


PARTS = ("model.vision_model", "model.mqformer", "model.language_projection", "model.language_model", "lm_head")


@pytest.mark.parametrize(
    "placement",
    [{"device_map": "auto"}, {"device_map": "auto", "max_memory": {"cpu": "4MB"}}, {"device_map": {"": "disk"}}]
    + [{"device_map": {name: "disk" if name == part else "cpu" for name in PARTS}} for part in PARTS],
    ids=["auto", "auto-4MB", "all", *PARTS],
)
def test_offload_changes_nothing(model, saved, batch, placement, tmp_path):
    """Any part may wait on disk."""
    placed = LyricsForConditionalGeneration.from_pretrained(saved, offload_folder=tmp_path, **placement)
    on_disk = "disk" in getattr(placed, "hf_device_map", {}).values()
    assert on_disk == (placement != {"device_map": "auto"})
    assert torch.equal(forward(placed, batch).logits, forward(model, batch).logits)
    assert torch.equal(placed.generate(**batch, **GREEDY), model.generate(**batch, **GREEDY))


def test_cpu_offload_changes_nothing(model, batch):
    from accelerate import cpu_offload

    placed = cpu_offload(copy.deepcopy(model), execution_device="cpu")
    assert placed.lm_head.weight.device.type == "meta"
    assert torch.equal(forward(placed, batch).logits, forward(model, batch).logits)


# ------------------------------------------------------------------------------------ quantization


def quantizers():
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import BitsAndBytesConfig, TorchAoConfig

    return {
        "torchao": TorchAoConfig(Int8WeightOnlyConfig()),
        "8 bits": BitsAndBytesConfig(load_in_8bit=True),
        "4 bits": BitsAndBytesConfig(load_in_4bit=True),
        "dictionary": {"load_in_4bit": True, "quant_method": "bitsandbytes"},
    }


def quantized_parts(model):
    """Names of the parts that hold a quantized layer."""
    plain = (torch.float32, torch.nn.Parameter)
    return {
        next(part for part in PARTS if name.startswith(part))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (module.weight.dtype, type(module.weight)) != plain
    }


@pytest.mark.parametrize("method", ["torchao", "8 bits", "4 bits", "dictionary"])
def test_only_the_language_model_is_quantized(model, saved, batch, method):
    """Vision encoder, MQ-Former and projection keep their weights, bit for bit."""
    config = quantizers()[method]
    before = copy.deepcopy(config)
    quantized = LyricsForConditionalGeneration.from_pretrained(saved, quantization_config=config)
    assert quantized_parts(quantized) == {"model.language_model"}
    assert torch.equal(forward(quantized, batch).image_hidden_states, forward(model, batch).image_hidden_states)
    assert quantized.generate(**batch, **GREEDY).shape[0] == 3
    assert config == before if isinstance(config, dict) else config.to_dict() == before.to_dict()


def test_a_quantized_model_is_saved_as_it_is(saved, batch, tmp_path):
    quantized = LyricsForConditionalGeneration.from_pretrained(saved, quantization_config=quantizers()["torchao"])
    quantized.save_pretrained(tmp_path)
    again = LyricsForConditionalGeneration.from_pretrained(tmp_path)
    assert quantized_parts(again) == {"model.language_model"}
    assert torch.equal(forward(again, batch).logits, forward(quantized, batch).logits)


def test_what_is_quantized_can_be_chosen(saved):
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "model.language_model"])
    quantized = LyricsForConditionalGeneration.from_pretrained(saved, quantization_config=config)
    assert quantized_parts(quantized) == {"model.vision_model", "model.mqformer", "model.language_projection"}
