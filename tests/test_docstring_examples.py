"""The examples in the docstrings of the main classes run as they are written, offline and in seconds."""

import doctest

import pytest

import lyrics

MAIN_CLASSES = [
    "Lyrics",
    "LyricsConfig",
    "LyricsForConditionalGeneration",
    "LyricsForPreTraining",
    "LyricsProcessor",
    "LyricsSFTTrainer",
]


@pytest.mark.parametrize("name", MAIN_CLASSES)
def test_the_example_of_a_main_class_runs(name):
    examples = doctest.DocTestFinder(recurse=False).find(getattr(lyrics, name), name, globs={})
    results = doctest.DocTestRunner().run(examples[0])
    assert results.attempted >= 3
    assert results.failed == 0
