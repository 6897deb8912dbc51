"""What is public is listed, sorted, and there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ingest", "edge_agent", "stream", "engines", "deploy")
TRAINING = ("engines.training", "deploy.training")
"""These need the `train` extra, and are imported by its own tests."""
HEAVY = {"keras", "tensorflow", "tf2onnx"}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def natural(name: str) -> tuple[int, str]:
    """The order of ruff's RUF022: CONSTANTS, then Classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]:
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def defined(tree: ast.Module) -> set[str]:
    """What a module defines under a public name, without a command line's commands: those belong to its ``app``."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return {node.name for node in nodes if not any("app.command" in ast.unparse(d) for d in node.decorator_list)}


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_listed_and_sorted(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    names = listed(tree)
    if names is None:
        assert defined(tree) <= {"main"}, f"{name} defines {sorted(defined(tree))} and has no __all__"
        return
    assert names == sorted(set(names), key=natural)
    missing = defined(tree) - set(names)
    assert not missing, f"{sorted(missing)} are public by name: list them in __all__ or give them a leading _"


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith(TRAINING) and not n.endswith("__main__")])
def test_every_name_that_is_listed_is_there(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in HEAVY:
            pytest.skip(f"needs {error.name}")
        raise
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"
