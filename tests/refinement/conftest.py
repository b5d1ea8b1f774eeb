import pytest

from tests.failpoints import Failpoints


@pytest.fixture(scope="session")
def failpoints():
    """A process that has imported everything that is killed here."""
    with Failpoints("import os, json\nimport lyrics.assets\nfrom lyrics.refinement import *\n") as process:
        yield process
