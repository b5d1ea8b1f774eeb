"""Optional libraries: a missing one is an error that names its extra."""

import sys

import pytest

from lyrics.utils.optional_imports import import_optional


def test_a_module_is_returned():
    assert import_optional("pyarrow.parquet") is sys.modules["pyarrow.parquet"]


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("ray.data", "ray", "scale"), ("pyarrow", "pyarrow", "refinement"), ("datasets", "datasets", "refinement")],
)
def test_a_missing_library_names_its_extra(monkeypatch, name, library, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"This needs {library}: pip install 'ziya-lyrics\[{extra}\]'"):
        import_optional(name)
