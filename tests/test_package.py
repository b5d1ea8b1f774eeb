"""What the package promises about itself: imports, remote code, shipped files."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lyrics.assets import EXAMPLE_PICTURE, draw_table, random_parts

ROOT = Path(__file__).parents[1]
EXPORTED = ["modeling_lyrics", "processing_lyrics"]
PACKAGES = [*EXPORTED, "refinement", "conversion", "trainers", "assets", "recipes", "cli"]
ALLOWED = {
    "modeling_lyrics": {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "safetensors"},
    "processing_lyrics": {"torch", "transformers", "numpy", "PIL", "tokenizers", "safetensors"},
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module, [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, name.name, []) for name in node.names)


@pytest.mark.parametrize("package", EXPORTED)
def test_exported_packages_are_flat_and_self_contained(package):
    """Their files are pushed to the Hub as remote code, which follows `from .module import name` and nothing else."""
    assert not [path for path in (ROOT / package).iterdir() if path.is_dir() and path.name != "__pycache__"]
    for file in (ROOT / package).glob("*.py"):
        if file.name == "__init__.py":
            continue
        for level, module, _ in imports(file):
            assert level <= 1, f"{file.name} imports another package"
            assert level == 0 or module, f"{file.name}: `from . import x` is not followed"
            known = ALLOWED[package] | sys.stdlib_module_names
            assert level == 1 or module.split(".")[0] in known, f"{file.name}: {module}"


def test_exported_files_have_names_of_their_own():
    """Both packages lie in one folder of the Hub."""
    names = [file.name for package in EXPORTED for file in (ROOT / package).glob("*.py") if file.name != "__init__.py"]
    assert len(set(names)) == len(names)


def test_dependencies_point_one_way():
    """cli -> trainers, conversion -> refinement -> processing, modeling; these two know each other for registration."""
    order = {"cli": 4, "trainers": 3, "conversion": 3, "assets": 2, "refinement": 2, "processing_lyrics": 1}
    order |= {"modeling_lyrics": 1, "recipes": 4}
    for package in PACKAGES:
        for file in (ROOT / package).glob("*.py"):
            for level, module, _ in imports(file):
                if level == 2 and package not in EXPORTED:
                    assert order[(module or package).split(".")[0]] <= order[package], f"{package}/{file.name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
    assert importlib.util.find_spec(f"lyrics.{package}")


def test_the_example_picture_is_the_drawn_one():
    np.testing.assert_array_equal(np.asarray(Image.open(EXAMPLE_PICTURE)), np.asarray(draw_table()))


def test_nothing_heavy_is_imported():
    """Importing the models takes none of the optional libraries, and not torchvision (F51)."""
    names = ("trl", "peft", "datasets", "pyarrow", "torchvision", "ray", "gradio")
    code = "import sys, lyrics.modeling_lyrics, lyrics.refinement;"
    code += f"print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_remote_code(tmp_path):
    """A machine without this package runs the checkpoint from the code beside its weights."""
    from lyrics.modeling_lyrics import LyricsConfig, LyricsForConditionalGeneration, LyricsVisualRefiner
    from lyrics.processing_lyrics import LyricsProcessor

    model, processor = random_parts(seed=0)  # saving marks them
    classes = {
        LyricsConfig: "AutoConfig",
        LyricsForConditionalGeneration: "AutoModelForImageTextToText",
        LyricsVisualRefiner: "AutoModel",
        type(processor.refiner.config): "AutoConfig",
        LyricsProcessor: "AutoProcessor",
        type(processor.image_processor): "AutoImageProcessor",
    }
    for one, auto_class in classes.items():
        one.register_for_auto_class(auto_class)
    try:
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
    finally:
        for one in classes:
            one._auto_class = None
    assert "auto_map" in json.loads((tmp_path / "config.json").read_text())
    expected = processor(images=draw_table(), text="<image> What?", return_tensors="pt")
    tokens = model.generate(**expected, max_new_tokens=5)[0].tolist()
    code = f"""
import sys
sys.modules["lyrics"] = None
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)
trusted = {{"trust_remote_code": True}}
processor = AutoProcessor.from_pretrained({str(tmp_path)!r}, refiner_kwargs=trusted, **trusted)
inputs = processor(images=Image.open({str(EXAMPLE_PICTURE)!r}), text="<image> What?", return_tensors="pt")
print(model.generate(**inputs, max_new_tokens=5)[0].tolist())
"""
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip().splitlines()[-1] == str(tokens)
