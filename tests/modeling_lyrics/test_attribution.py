"""Why an answer says what it says, and where it comes from."""

import copy

import numpy as np
import pytest
import torch

from lyrics.assets import draw_table, random_parts
from lyrics.modeling_lyrics import attribute_answer, describe_provenance
from lyrics.modeling_lyrics.attribution_lyrics import follow_attention
from lyrics.processing_lyrics import VisualObjects


@pytest.fixture(scope="module")
def parts():
    model, processor = random_parts(region_feature_size=36)
    processor.mqformer_text = "instruction"  # the order of objects then changes nothing
    return model, processor


@pytest.fixture(scope="module")
def objects():
    random = np.random.default_rng(0)
    return VisualObjects(
        labels=["cup", "ball", "book"],
        boxes=[[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9], [0.2, 0.6, 0.3, 0.8]],
        scores=[0.9, 0.8, 0.7],
        region_features=random.normal(size=(3, 36)).astype(np.float32),
    )


def ask(parts, *seen):
    """Inputs and answer of a question about as many images as there are objects."""
    model, processor = parts
    content = [{"type": "image", "image": draw_table()} for _ in seen] + [{"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": list(seen)},
    )
    return inputs, model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)


def test_attention_is_shared_among_regions(parts, objects):
    model, _ = parts
    before = model.model.language_model.config._attn_implementation
    inputs, generated = ask(parts, objects)
    why = attribute_answer(model, inputs, generated)
    assert why.query_weights.shape == (1, 16, 3)
    assert why.token_weights.shape == (5, 1, 3)
    torch.testing.assert_close(why.query_weights.sum(-1), torch.ones(1, 16))
    assert ((why.token_weights.sum((1, 2)) > 0) & (why.token_weights.sum((1, 2)) < 1)).all()
    assert why.region_weights().sum() == pytest.approx(1)
    assert why.token_ids.tolist() == generated[0, -5:].tolist()
    assert model.model.language_model.config._attn_implementation == before
    assert torch.equal(model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False), generated)


def test_attention_is_followed_from_the_last_layer_to_the_first():
    """What a later layer looks at has been looked up by an earlier one, by one head of several; never the other way."""

    def look(place, at):
        heads = torch.eye(4).repeat(1, 3, 1, 1)
        heads[0, 1, place] = torch.eye(4)[at]
        return heads

    layers = [look(2, at=0), look(3, at=2)]
    flow, back = (follow_attention(order, torch.tensor([3, 1])) for order in (layers, layers[::-1]))
    torch.testing.assert_close(flow.sum(-1), torch.ones(2))
    assert flow[0, 0] > 0.1
    assert back[0, 0] == 0
    assert flow[1].tolist() == [0, 1, 0, 0]


def test_weights_go_with_their_objects(parts, objects):
    """In another order the same objects have the same weights."""
    order = [2, 0, 1]
    moved = VisualObjects(
        labels=[objects.labels[index] for index in order],
        boxes=objects.boxes[order],
        scores=objects.scores[order],
        region_features=objects.region_features[order],
    )
    (inputs, generated), (moved_inputs, moved_generated) = ask(parts, objects), ask(parts, moved)
    assert torch.equal(generated, moved_generated)
    weights = attribute_answer(parts[0], inputs, generated).region_weights()
    moved_weights = attribute_answer(parts[0], moved_inputs, moved_generated).region_weights()
    torch.testing.assert_close(moved_weights, weights[:, order])


def test_an_image_without_objects_has_no_weight(parts, objects):
    """Of two images; padding has none either."""
    nothing = VisualObjects(labels=[], boxes=np.zeros((0, 4)), scores=[], region_features=np.zeros((0, 36)))
    why = attribute_answer(parts[0], *ask(parts, objects, nothing))
    assert why.region_weights()[0].sum() == pytest.approx(1)
    assert not why.query_weights[1].any()
    assert not why.token_weights[:, 1].any()


def test_nothing_was_attended_to_where_nothing_was_found(parts):
    """An answer about an image without objects is explained as well: by no region."""
    model, processor = parts
    nothing = VisualObjects(labels=[], boxes=np.zeros((0, 4)), scores=[], region_features=np.zeros((0, 36)))
    why = attribute_answer(model, *ask(parts, nothing))
    assert why.query_weights.shape == (1, 16, 0)
    assert why.token_weights.shape == (5, 1, 0)
    weights = why.region_weights()[0].tolist()
    assert processor.visualize_attention(draw_table(), nothing, weights).size == draw_table().size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs, generated: (inputs, inputs["input_ids"]), "no answer to explain"),
        (lambda inputs, generated: (inputs, generated.repeat(2, 1)), "One conversation at a time.* got 2"),
        (lambda inputs, generated: (dict(inputs) | {"region_features": None}, generated), "no region_features"),
    ],
)
def test_what_cannot_be_explained(parts, objects, change, message):
    with pytest.raises(ValueError, match=message):
        attribute_answer(parts[0], *change(*ask(parts, objects)))


def test_weights_must_fit_the_objects(parts, objects):
    with pytest.raises(ValueError, match="2 weights for 3 objects"):
        parts[1].visualize_attention(draw_table(), objects, [0.5, 0.5])


def test_provenance_tells_models_apart(parts, objects):
    model, processor = parts
    known = describe_provenance(model, processor, objects)
    assert known["refiner"] is None
    assert known["objects"][0] == {"label": "cup", "score": 0.9, "box": pytest.approx([0.1, 0.1, 0.4, 0.5])}
    other = copy.deepcopy(model)
    assert describe_provenance(other, processor)["model"] == known["model"]
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    assert describe_provenance(other, processor)["model"] != known["model"]
