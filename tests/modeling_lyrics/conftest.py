"""The micro model with weights large enough for tokens, images and objects to make a difference."""

import copy

import pytest
import torch

from lyrics.modeling_lyrics import LyricsForConditionalGeneration


@pytest.fixture(scope="session")
def model(micro) -> LyricsForConditionalGeneration:
    model = copy.deepcopy(micro[0])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return model
