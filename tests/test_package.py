"""The package as a whole: how its files import each other, its public names, remote code, shipped files."""

import ast
import importlib
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lyrics
from lyrics.assets import EXAMPLE_PICTURE, draw_table, random_parts

ROOT = Path(__file__).parents[1]
EXPORTED = ["modeling_lyrics", "processing_lyrics"]
LAYERS = [  # a folder imports folders to its right only; the two last are the exception, see below
    "cli",
    "recipes",
    "retrieval",
    "evaluation",
    "serving",
    "trainers",
    "conversion",
    "assets",
    "refinement",
    "datasets_lyrics",
    "utils",
    "processing_lyrics",
    "modeling_lyrics",
]
ALLOWED = {
    "modeling_lyrics": {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "safetensors"},
    "processing_lyrics": {"torch", "transformers", "numpy", "PIL", "tokenizers", "safetensors", "jinja2"},  # torch's
}


def imports(file):
    """Level, module and names of every import of a file, also of those inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module, [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, name.name, []) for name in node.names)


def library_files():
    """Every file of the package, with its module's name below `lyrics` (`lyrics_cli` for the command line)."""
    for layer in LAYERS:
        for file in sorted((ROOT / layer).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield file, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph():
    """For each module the modules of this package that it imports."""
    modules = {name: file for file, name in library_files()}
    graph = {}
    for name, file in modules.items():
        package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        graph[name] = set()
        for level, module, names in imports(file):
            if level:
                base = package[: len(package) - level + 1]
            elif module in ("lyrics", "lyrics_cli") or module.startswith(("lyrics.", "lyrics_cli.")):
                base, module = [], module.replace("lyrics_cli", "cli").removeprefix("lyrics").lstrip(".")
            else:
                continue
            target = ".".join([*base, *(module.split(".") if module else [])])
            found = [one for one in (f"{target}.{entry}".lstrip(".") for entry in names) if one in modules]
            graph[name].update(found or ([target] if target in modules else []))
        graph[name].discard(name)
    return graph


def is_registration(name, imported):
    """The packages of models and processors import each other once, so that importing either registers everything."""
    return {name, imported} == set(EXPORTED) or (
        name == "processing_lyrics" and imported == "modeling_lyrics.configuration_lyrics"
    )


def test_imports_point_downward():
    """From the command line down to the models, in the whole tree."""
    wrong = [
        f"{name} -> {imported}"
        for name, targets in import_graph().items()
        for imported in targets
        if LAYERS.index(imported.split(".")[0]) < LAYERS.index(name.split(".")[0])
        and not is_registration(name, imported)
    ]
    assert not wrong


def test_modules_import_each_other_in_no_circle():
    """Imports inside functions count. A package's `__init__` only hands on what its modules hold."""
    graph = {
        name: {one for one in targets if not is_registration(name, one)} for name, targets in import_graph().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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


def definitions(package):
    """Source of every function, class and constant at the top of a package's files, by name."""
    found = {}
    for file in (ROOT / package).glob("*.py"):
        source = file.read_text()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = ast.get_source_segment(source, node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = ast.get_source_segment(source, node)
    return found


def test_helpers_in_both_exported_packages_agree():
    """They cannot import each other, so a few helpers exist twice: their code must be the same."""
    modeling, processing = map(definitions, EXPORTED)
    doubled = {name for name in modeling.keys() & processing.keys() if not name.startswith("__") and name != "logger"}
    assert {"HUB_KWARGS", "find_file"} <= doubled
    assert [name for name in sorted(doubled) if modeling[name] != processing[name]] == []


def packages():
    return [name for file, name in library_files() if file.name == "__init__.py"]


@pytest.mark.parametrize("package", packages())
def test_packages_are_typed_and_installed(package):
    folder = ROOT / package.replace(".", "/")
    assert (folder / "py.typed").is_file()
    assert importlib.import_module("lyrics_cli" if package == "cli" else f"lyrics.{package}").__doc__


def test_every_public_name_can_be_imported():
    assert sorted(lyrics.__all__) == sorted(set(lyrics.__all__))
    for name in lyrics.__all__:
        assert getattr(lyrics, name) is not None
        assert name in dir(lyrics)
    with pytest.raises(AttributeError, match="no attribute 'LyricsForEverything'"):
        _ = lyrics.LyricsForEverything


def run_python(code, **environment):
    """Standard output of a fresh interpreter outside the repository."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", **environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip()


def test_importing_lyrics_registers_the_auto_classes():
    code = "import lyrics; from transformers import AutoModelForImageTextToText as A, AutoProcessor as P;"
    code += (
        "model = A.from_pretrained(lyrics.MICRO_CHECKPOINT); processor = P.from_pretrained(lyrics.MICRO_CHECKPOINT);"
    )
    code += "print(type(model) is lyrics.LyricsForConditionalGeneration, type(processor) is lyrics.LyricsProcessor)"
    assert run_python(code).splitlines()[-1] == "True True"


def test_nothing_of_posix_alone_is_needed_to_import():
    """Windows lacks these modules. Other libraries, built for this system, may import them here."""
    missing = ("fcntl", "pwd", "grp", "resource", "termios")
    unimportable = ("__main__", "lmms_eval", "vlmevalkit")  # the last two are imported by the harnesses of their names
    code = f"""
import importlib, pkgutil, sys
class Windows:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in {missing} and frame.f_globals["__name__"].split(".")[0] in ("lyrics", "lyrics_cli"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
for name in {missing}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Windows())
import lyrics, lyrics_cli
for package in (lyrics_cli, lyrics):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "tests" not in module.name and not module.name.endswith({unimportable}):
            for name in {missing}:
                sys.modules.pop(name, None)
            importlib.import_module(module.name)
print("imported")
"""
    assert run_python(code).splitlines()[-1] == "imported"


def test_the_example_picture_is_the_drawn_one():
    np.testing.assert_array_equal(np.asarray(Image.open(EXAMPLE_PICTURE)), np.asarray(draw_table()))


def test_nothing_heavy_is_imported():
    """Importing the package takes none of the optional libraries, and not torchvision."""
    names = ("trl", "peft", "datasets", "pyarrow", "torchvision", "ray", "gradio", "starlette", "uvicorn")
    code = f"import sys, lyrics, lyrics.refinement; print([name for name in {names} if name in sys.modules])"
    assert run_python(code).splitlines()[-1] == "[]"


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
