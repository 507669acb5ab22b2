"""Modules that a user names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestra_graph.billing import describe
from orchestra_graph.modules import import_named


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, into which nobody looks yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_module_of_the_working_folder_is_found_with_what_it_imports_from_there(folder: Path) -> None:
    (folder / "named_prices.py").write_text("RENT = 3")
    (folder / "named_tools.py").write_text("from named_prices import RENT")
    assert import_named("named_tools").RENT == 3


def test_a_folder_passes_for_no_package_where_what_is_named_is_installed(folder: Path) -> None:
    (folder / "named_environment").mkdir()
    assert import_named("json.decoder").__name__ == "json.decoder"
    assert find_spec("named_environment") is None


def test_what_an_installed_module_lacks_is_not_looked_for_in_the_working_folder(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "named_lacking.py").write_text("import named_gone")
    sys.path.append(str(folder / "site"))
    (folder / "named_gone.py").write_text("")
    with pytest.raises(ModuleNotFoundError, match="named_gone"):
        import_named("named_lacking")
    assert "" not in sys.path


def test_what_a_module_raises_is_one_line(folder: Path) -> None:
    (folder / "named_torn.py").write_text("raise ValueError('boom\\nand more')")
    with pytest.raises(ValueError, match="boom") as caught:
        import_named("named_torn")
    assert describe(caught.value) == "ValueError: boom and more"
