"""An image is refined once, as long as nothing changes that its objects depend on."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.processing_lyrics import LyricsProcessor


@pytest.fixture
def processor():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


def misses(processor):
    return processor.refined_cache.stats().misses


def test_a_later_turn_does_not_refine_again(processor):
    content = [{"type": "image", "path": str(SCENE_PICTURE)}, {"type": "text", "text": "What color is the ring?"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "purple"}]}
    again = {"role": "user", "content": [{"type": "text", "text": "And the red star?"}]}
    first = [{"role": "user", "content": content}]
    for conversation in (first, [*first, answer, again]):
        processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt")
    assert processor.refined_cache.stats().hits == 1
    assert misses(processor) == 1


def test_a_picture_is_known_by_its_pixels(processor):
    picture = Image.open(SCENE_PICTURE)
    found = processor.refine([SCENE_PICTURE, picture, np.asarray(picture.convert("RGB"))])
    assert misses(processor) == 1
    found[0].boxes[:] = 0
    found[0].labels.clear()
    for other in (found[1], processor.refine(SCENE_PICTURE)[0]):  # nobody shares what another may have changed
        assert other.boxes.all(axis=1).any()
        assert other.labels
    processor.refine(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert misses(processor) == 2


def change_weight(refiner):
    with torch.no_grad():
        refiner.detector.model.level_embed[0, 0] += 1


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        lambda refiner: setattr(refiner.config, "box_threshold", 0.9),
        lambda refiner: refiner.tagger.config.__setattr__("threshold", 0.9),
        lambda refiner: refiner.to(torch.bfloat16),
    ],
    ids=["weight", "setting", "setting of a part", "dtype"],
)
def test_what_objects_depend_on_is_noticed(processor, change):
    processor.refine(SCENE_PICTURE)
    change(processor.refiner)
    processor.refine(SCENE_PICTURE)
    assert misses(processor) == 2


def test_tags_and_masks_are_told_apart(processor):
    plain = processor.refine(SCENE_PICTURE)[0]
    masked = processor.refine(SCENE_PICTURE, return_masks=True)[0]
    assert masked.masks is not None
    assert processor.refine(SCENE_PICTURE)[0].masks is None
    assert set(processor.refine(SCENE_PICTURE, tags=["ring"])[0].labels) == {"ring"}
    assert processor.refine(SCENE_PICTURE)[0].labels == plain.labels
    processor.refined_cache.clear()
    processor.refine(SCENE_PICTURE, return_masks=True)
    before = misses(processor)
    processor.refine(SCENE_PICTURE)
    assert processor.refined_cache.stats().entries == 1  # objects with masks serve where none are wanted
    assert misses(processor) == before


def test_the_cache_can_be_bounded_and_stays_in_its_process(processor):
    processor.refine(SCENE_PICTURE)
    assert 0 < processor.refined_cache.stats().bytes < 100_000
    again = pickle.loads(pickle.dumps(processor))
    assert again.refined_cache.stats().entries == 0
    again.refined_cache.max_bytes = 0
    again.refine(SCENE_PICTURE)
    again.refine(SCENE_PICTURE)
    assert misses(again) == 2


class Slotted:
    """What another refiner may return: no attribute but those of the interface, and no `__dict__`."""

    __slots__ = ("boxes", "labels", "masks", "region_features", "scores", "tags")


class Other:
    """A refiner that returns the micro model's objects in a class of its own."""

    def __init__(self, refiner):
        self.refiner, self.config = refiner, refiner.config

    def refine(self, images, **options):
        results = []
        for found in self.refiner.refine(images, **options):
            results.append(Slotted())
            for name in Slotted.__slots__:
                setattr(results[-1], name, getattr(found, name))
        return results


def test_objects_of_another_refiner_need_not_be_of_our_class(processor):
    expected = processor.refine(SCENE_PICTURE)[0]
    other = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner=False).attach_refiner(Other(processor.refiner))
    assert other.refine(SCENE_PICTURE)[0] == expected


class Known:
    """A store that finds images by their hash."""

    def __init__(self, objects):
        self.objects, self.asked = objects, []

    def find_image(self, image_hash):
        self.asked.append(image_hash)
        return self.objects

    def lookup(self, picture):
        raise AssertionError("The image is decoded and hashed again.")


def test_a_store_is_asked_for_the_hash_that_is_known(processor):
    picture = processor.open_pictures(SCENE_PICTURE)[0]
    processor.store = Known(processor.refine(SCENE_PICTURE)[0])
    assert processor.refine(picture) == [processor.store.objects]
    assert processor.store.asked == [picture.key]


def test_a_store_outlives_a_refiner_that_cannot_be_moved(processor):
    processor.store = store = Known(None)
    assert processor.refiner
    with pytest.raises(RuntimeError, match="nowhere"):
        processor.to("nowhere")
    assert processor.store is store


def test_processors_with_two_stores_share_no_refiner(processor):
    other = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    processor.store, other.store = Known(None), Known(None)
    with pytest.raises(ValueError, match="Both processors have a store"):
        processor.share_refiner_of(other)
    processor.store = None
    assert processor.share_refiner_of(other).store is other.store
