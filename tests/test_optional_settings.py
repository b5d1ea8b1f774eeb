"""Every setting is switched off its default by the fixture that the tests of every model run through."""

import inspect

import torch

from lyrics.modeling_lyrics import LyricsForPreTraining, LyricsRefinerConfig
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.processing_lyrics.image_processing_lyrics import _Settings

from .optional_settings import IMAGE_PROCESSOR, PRETRAINING, PROCESSOR, pretraining_config

SAVED = {"fingerprint"}  # written by save_pretrained, which other tests may have called
CONFIGURATIONS = {
    LyricsRefinerConfig: {
        "tile_aspect_ratio": "it is for features of masks, which the other fixtures have: see test_refiner_tiles.py",
    }
}
PROCESSORS = {"refiner_fingerprint": "save_pretrained writes it"}
IMAGE_PROCESSORS = {
    "do_resize": "images of other sizes than the vision encoder's cannot enter the model",
    "do_normalize": "image_mean and image_std would have no effect",
    "default_to_square": "it is for a size of one number, and a model's size has two",
    "model_input_names": "it belongs to the class",
}


def unswitched(given, defaults):
    """Names of the settings that have their default."""
    return {name for name, default in defaults.items() if given.get(name, default) == default}


def test_every_setting_of_a_configuration_is_switched(with_every_option):
    """A new field needs a value in `tests/optional_settings.py`, or a reason here."""
    model, processor = with_every_option
    refiner = processor.refiner.config
    for config in (model.config, model.config.mqformer_config, refiner, refiner.tagger_config, pretraining_config()):
        kind, default = type(config), type(config)()
        fields = kind.__annotations__
        found = unswitched(
            {name: getattr(config, name) for name in fields}, {name: getattr(default, name) for name in fields}
        )
        assert found - SAVED == CONFIGURATIONS.get(kind, {}).keys(), kind.__name__


def test_every_setting_of_a_processor_is_switched():
    parameters = inspect.signature(LyricsProcessor.__init__).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
    assert unswitched(PROCESSOR, defaults) == PROCESSORS.keys()
    defaults = {name: value for name, value in vars(_Settings).items() if not (name[0] == "_" or callable(value))}
    assert unswitched(IMAGE_PROCESSOR, defaults) == IMAGE_PROCESSORS.keys()


def test_a_first_stage_model_with_every_option_is_loaded(tmp_path):
    torch.manual_seed(0)
    model = LyricsForPreTraining(pretraining_config())
    model.save_pretrained(tmp_path)
    loaded = LyricsForPreTraining.from_pretrained(tmp_path)
    assert all(getattr(loaded.config, name) == value for name, value in PRETRAINING.items())
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
