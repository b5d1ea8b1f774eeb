"""Benchmarks of the micro world, and how they are asked about."""

import pytest

from lyrics import Lyrics
from lyrics.evaluation.tasks import parse_units
from lyrics.recipes.micro.world.official_formats import write_benchmarks

PROMPTS = ("vqav2={question}", "pope={question}", "refcoco=Where is the {question}?")
TASKS = ("vqav2", "refcoco/val", "pope/random")


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory):
    """Folder of VQAv2, RefCOCO, POPE and COCO captions of the micro world; not to be changed."""
    folder = tmp_path_factory.mktemp("benchmarks") / "data"
    write_benchmarks(folder, per_kind=2)
    return folder


@pytest.fixture(scope="session")
def units(benchmarks):
    """Units of three benchmarks."""
    return parse_units(TASKS, benchmarks, PROMPTS)


@pytest.fixture
def load(micro):
    """Function that loads the random micro model."""
    return lambda: Lyrics(*micro)
