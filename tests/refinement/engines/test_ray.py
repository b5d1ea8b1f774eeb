"""The Ray engine, on a local Ray."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import Item, Source, TooManyFailuresError, refine_dataset

from ..conftest import SHARD_SIZE, contents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray():
    import ray

    ray.init(num_cpus=2, object_store_memory=100_000_000, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


class DyingSource(Source):
    """Source that kills the actor that reads shard 1, once; or that cannot be read."""

    def __init__(self, photos, death, broken=False):
        self.photos, self.death, self.broken = sorted(photos.glob("a*.png")), death, broken
        self.shards = self.total = 3

    def describe(self):
        return {"kind": "dying"}

    def items(self, shard):
        yield Item(f"{shard}.png", self.photos[shard], "")
        if self.broken:
            raise OSError(5, "Input/output error", "the disk")
        if shard == 1 and self.death.exists():
            self.death.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _by_value():
    """Actors cannot import the tests, so that Ray pickles their classes by value."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_ray_writes_the_same_store(photos, made, loaded, tmp_path):
    """The same bytes as one process writes."""
    folder = tmp_path / "store"
    refine_dataset(photos, folder, loaded, shard_size=SHARD_SIZE, max_failure_rate=0.5, engine="ray", workers=2)
    assert contents(folder) == contents(made)


def test_the_shard_of_a_lost_actor_is_made_again(photos, loaded, checkpoint, tmp_path):
    death = tmp_path / "death"
    source = DyingSource(photos, death)
    refine_dataset(source, tmp_path / "local", loaded)
    death.touch()
    again = LyricsProcessor.from_pretrained(checkpoint)
    refine_dataset(source, tmp_path / "store", again, engine="ray", workers=1)
    assert not death.exists()
    assert contents(tmp_path / "store") == contents(tmp_path / "local")


def test_errors_of_actors_are_raised_in_the_driver(photos, loaded, tmp_path):
    """With their own type; too many failures stop the run."""
    with pytest.raises(OSError, match="Input/output error: 'the disk'"):
        refine_dataset(DyingSource(photos, tmp_path / "none", broken=True), tmp_path / "a", loaded, engine="ray")
    with pytest.raises(TooManyFailuresError, match="1 of 8 images failed"):
        refine_dataset(photos, tmp_path / "b", loaded, engine="ray", max_failure_rate=0.1)


def test_without_ray_the_extra_is_named(photos, checkpoint, tmp_path):
    code = f"""
import sys
sys.modules["ray"] = None
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import refine_dataset
processor = LyricsProcessor.from_pretrained({str(checkpoint)!r})
refine_dataset({str(photos)!r}, {str(tmp_path / "store")!r}, processor, engine="ray")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "ImportError: This needs ray: pip install 'ziya-lyrics[scale]'" in run.stderr


def test_a_machine_that_is_lost_costs_its_shards_alone(photos, checkpoint, tmp_path):
    """Three nodes with a token, as docs/scale.md says, of which one is removed; a process of its own, for the token."""
    messages = tmp_path / "messages"
    messages.mkdir()
    script = Path(__file__).with_name("lost_machine.py")
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    arguments = [sys.executable, str(script), str(photos), str(checkpoint), str(tmp_path), str(messages)]
    run = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (messages / "removed").exists()
    assert not (messages / "chance").exists()
    assert contents(tmp_path / "store") == contents(tmp_path / "local")
