"""Training with stored and with on-line objects: the same losses and batches."""

import pytest
import torch
from datasets import Dataset, Features, Image, Value

from lyrics.modeling_lyrics import LyricsForPreTraining
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import LyricsPretrainingArguments, LyricsPretrainingTrainer, LyricsSFTCollator

from ..pretraining_parts import SIDE, build_config, build_processor
from ..trainers.two_ranks import history

KEYS = ["a0.png", "a1.png", "a2.png", "sub/b0.PNG", "sub/b1.PNG", "sub/b2.PNG"]
WIDTH = 36  # of the micro refiner's region features


@pytest.fixture
def rows(photos):
    """Data set of images and captions."""
    listed = [{"image": str(photos / key), "caption": f"{number} red balls"} for number, key in enumerate(KEYS)]
    return Dataset.from_list(listed, features=Features({"image": Image(), "caption": Value("string")}))


def losses(folder, processor, rows):
    torch.manual_seed(0)
    config = build_config()
    config.mqformer_config.region_hidden_size = WIDTH
    model = LyricsForPreTraining(config)
    model.model.vision_model.requires_grad_(False)
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    processor.image_processor.crop_size = {"height": SIDE, "width": SIDE}
    settings = {"per_device_train_batch_size": 3, "max_steps": 4, "logging_steps": 1, "save_strategy": "no", "seed": 1}
    settings |= {"report_to": [], "disable_tqdm": True, "use_cpu": True}
    arguments = LyricsPretrainingArguments(output_dir=str(folder), **settings)
    trainer = LyricsPretrainingTrainer(model, arguments, rows, None, processor)
    trainer.train()
    names = ("loss", "loss_itc", "loss_itm", "loss_icg", "loss_msp")
    return torch.tensor([[line[name] for name in names] for line in history(trainer)])


def test_losses_from_a_store_are_those_on_line(store, checkpoint, rows, tmp_path):
    """In four steps, with objects from the processor's store or from a column."""
    online = losses(tmp_path, LyricsProcessor.from_pretrained(checkpoint), rows)
    looked_up = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
    looked_up.store = store
    stored = losses(tmp_path, looked_up, rows)
    without = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
    column = losses(tmp_path, without, store.attach(rows))
    assert torch.equal(stored, column)
    torch.testing.assert_close(stored, online, rtol=2e-3, atol=2e-3)
    assert (online[:, 4] > 0).any(), "the objects were there"


def test_a_new_first_stage_records_the_refiner_of_its_store(store, tmp_path, rows):
    """It starts without a refiner, and its saved processor has the fingerprint of the store."""
    processor = build_processor()
    processor.region_feature_size = WIDTH
    processor.store = store
    losses(tmp_path, processor, rows)
    processor.save_pretrained(tmp_path / "saved", save_refiner=False)
    assert LyricsProcessor.from_pretrained(tmp_path / "saved").refiner_fingerprint == store.manifest.refiner.fingerprint


def test_batches_of_the_second_stage_from_a_store_are_those_on_line(store, checkpoint, photos):
    """With objects from the processor's store or from a column: equal text, features within half precision."""
    asked = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    listed = [{"images": [str(photos / key)], "messages": asked} for key in KEYS]
    online = LyricsSFTCollator(LyricsProcessor.from_pretrained(checkpoint))(listed)
    without = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
    seen = [[store[key]] for key in KEYS]
    column = LyricsSFTCollator(without)([row | {"visual_objects": one} for row, one in zip(listed, seen, strict=True)])
    without.store = store
    stored = LyricsSFTCollator(without)(listed)
    for name, expected in online.items():
        if name == "samples":
            continue
        assert torch.equal(stored[name], column[name]), name
        torch.testing.assert_close(stored[name], expected, rtol=2e-3, atol=2e-3, msg=name)
    assert online["region_attention_mask"].any(), "the objects were there"
