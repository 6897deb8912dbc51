"""Tests that packages list their public names and that every module can be imported."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("ingest", "edge_agent", "stream", "engines", "training", "console", "deploy")
HEAVY = {"keras", "tensorflow", "tf2onnx"}
"""Packages that need the `train` extra. The tests of training import these packages."""


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
PACKAGE_INITS = {module_name(file): file for file in FILES if file.name == "__init__.py"}
MODULES = {module_name(file): file for file in FILES if file.name != "__init__.py"}


def sort_key(name: str) -> tuple[int, str]:
    """Return the sort key of ruff's RUF022: CONSTANTS, then Classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def listed(file: Path) -> list[str] | None:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]:
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def imported(file: Path) -> set[str]:
    """Return the public names that a package's `__init__` imports from its modules."""
    nodes = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
    own = [node for node in nodes if (node.module or "").startswith(module_name(file))]
    names = {alias.asname or alias.name for node in own for alias in node.names}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", PACKAGE_INITS)
def test_a_package_lists_its_public_names_sorted(name: str) -> None:
    names = listed(PACKAGE_INITS[name])
    if names is None:
        assert not imported(PACKAGE_INITS[name]), f"{name} imports names of its modules, but has no __all__"
        return
    assert names == sorted(set(names), key=sort_key)


def test_modules_other_than_packages_have_no_list_of_public_names() -> None:
    assert [name for name, file in MODULES.items() if listed(file) is not None] == []


@pytest.mark.parametrize("name", [n for n in (*PACKAGE_INITS, *MODULES) if not n.endswith("__main__")])
def test_every_module_can_be_imported_and_has_its_listed_names(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in HEAVY:
            pytest.skip(f"needs {error.name}")
        raise
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"
