"""RAM: the original's numbers, and what a tag needs to fire."""

import json

import pytest
import torch
from transformers import AutoModel

from lyrics.modeling_lyrics import RamForImageTagging, RamModel

from ..conftest import GOLDEN, assert_golden


@pytest.fixture
def ram(published_refiner):
    return published_refiner.tagger


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_features_and_logits(published_refiner, full_golden, golden, implementation):
    ram = RamForImageTagging(published_refiner.tagger.config)
    ram.load_state_dict(published_refiner.tagger.state_dict())
    ram.eval().set_attn_implementation(implementation)
    pixels = golden("inputs")["ram_pixel_values"]
    with torch.no_grad():
        image, tags = ram.model(pixels), ram(pixels)
        stages = {
            "visual_encoder_output": image.last_hidden_state,
            "image_embeds": image.image_embeds,
            "label_embed_projected": torch.relu(ram.label_projection(ram.label_embeddings)),
            "tagging_embed": tags.tagging_embeds,
            "logits": tags.logits,
            "class_threshold": torch.full((40,), ram.config.threshold),
        }
    for name, expected in full_golden("ram").items():
        if name != "alt_class_threshold":
            assert_golden(stages[name], expected)


def test_tags(ram, golden, monkeypatch):
    """One threshold for all tags, and one for each."""
    expected = json.loads((GOLDEN / "published/expected/expected.json").read_text())["ram"]
    logits = golden("ram")["logits"]

    def tags():
        names = ram.config.id2label
        return [" | ".join(names[tag] for tag in row.nonzero().flatten().tolist()) for row in ram.fired(logits)]

    assert tags() == expected["tags_english"]
    chinese = [" | ".join(ram.config.chinese_labels[tag] for tag in row) for row in expected["indices"]]
    assert chinese == expected["tags_chinese"]
    monkeypatch.setattr(ram.config, "threshold", golden("ram")["alt_class_threshold"].tolist())
    assert tags() == expected["tags_english_alt_threshold"]
    monkeypatch.setattr(ram.config, "suppressed_label_ids", [18, 19])
    assert not any("chair" in row or "clock" in row for row in tags())


def test_fires_strictly_above_the_threshold_and_never_without_a_number(ram, monkeypatch):
    monkeypatch.setattr(ram.config, "threshold", 0.5)
    logits = torch.zeros(1, 40)
    logits[0, 1], logits[0, 2], logits[0, 3] = 1e-3, float("nan"), float("inf")
    assert ram.fired(logits)[0].nonzero().flatten().tolist() == [1, 3]


@pytest.mark.parametrize("shape", [None, (1, 3, 95, 96), (1, 3, 192, 192)])
def test_any_other_size_is_an_error(ram, shape):
    pixels = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError, match=r"pixel_values of shape \(batch, 3, 96, 96\)"):
        ram(pixels)


def test_tags_of_two_images_can_be_learned(refiner):
    torch.manual_seed(0)
    ram = RamForImageTagging(refiner.tagger.config).eval()
    pixels = torch.stack([torch.full((3, 96, 96), -1.0), torch.rand(3, 96, 96)])
    labels = torch.zeros(2, ram.config.num_labels)
    labels[0, :5], labels[1, 3:9] = 1, 1
    optimizer = torch.optim.AdamW(ram.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        ram(pixels, labels=labels).loss.backward()
        optimizer.step()
    assert torch.equal(ram.fired(ram(pixels).logits), labels.bool())


def test_save_and_load(refiner, tmp_path):
    tagger = refiner.tagger
    tagger.save_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(RamForImageTagging.from_pretrained(tmp_path)(pixels).logits, tagger(pixels).logits)
    assert type(AutoModel.from_pretrained(tmp_path)) is RamModel
