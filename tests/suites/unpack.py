"""Unpack the test mixins of a source distribution of Transformers: `python unpack.py transformers-X.tar.gz TARGET`.

The distribution lacks a few modules that its mixins import; they are replaced by stubs without tests. Images that the
mixins would fetch from the Hub are replaced by a small one that is drawn here.
"""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

STUBS = {
    "__init__.py": "",
    "generation/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "exporters/__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "utils/tiny_model_summary.json": "{}",
}

# Imported by that name from the folder `utils` beside the tests.
FETCH = """
import tempfile
from PIL import Image

PICTURE = tempfile.NamedTemporaryFile(suffix=".png")
Image.linear_gradient("L").convert("RGB").resize((320, 240)).save(PICTURE.name)


def url_to_local_path(url, *args, **kwargs):
    return PICTURE.name
"""


def unpack(archive: Path, target: Path) -> None:
    """Fill `target` with the package `transformers_suite` and what it looks for beside itself."""
    package = target / "transformers_suite"
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        shutil.copytree(next(Path(folder).glob("transformers-*/tests")), package)
    for path, text in {package / name: text for name, text in STUBS.items()}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (target / "utils").mkdir()
    (target / "utils" / "fetch_hub_objects_for_ci.py").write_text(FETCH)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
