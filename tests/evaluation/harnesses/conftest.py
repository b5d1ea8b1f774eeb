"""The random micro model behind the doors, with what the refiner of its images sees."""

import pytest

from lyrics import Lyrics


@pytest.fixture(scope="session")
def assistant(micro):
    """The object that the harnesses load, with random weights; not to be closed."""
    return Lyrics(*micro)


@pytest.fixture
def loads_assistant(monkeypatch, assistant):
    """Let the adapters load the shared object; the arguments of each load are in the list."""
    calls = []

    def from_pretrained(*args, **kwargs):
        calls.append((args, kwargs))
        return assistant

    monkeypatch.setattr(Lyrics, "from_pretrained", from_pretrained)
    return calls
