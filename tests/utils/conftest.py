"""A process that forks for every run and is killed at a file operation."""

import pytest

from ..failpoints import Failpoints


@pytest.fixture(scope="session")
def failpoints():
    """Process that has imported the atomic files and the folder lock."""
    imports = "import os\nfrom lyrics.utils.atomic_files import *\nfrom lyrics.utils.folder_lock import *\n"
    with Failpoints(imports) as process:
        yield process
