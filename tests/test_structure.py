"""Tests of the repository: size of folders, unique class names, and the path of a frame in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("ingest", "edge_agent", "stream", "engines", "training", "console", "deploy")
MAX_FILES_PER_FOLDER = 15
MAX_STEPS = 40
STEP = re.compile(r"^\d+\. `([a-z_/]+\.py):([A-Za-z_.]+)`", re.MULTILINE)
WALK = STEP.findall((ROOT / "docs" / "architecture.md").read_text())


def python_files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def test_folders_have_at_most_fifteen_files() -> None:
    files: defaultdict[Path, int] = defaultdict(int)
    for file in python_files(*PACKAGES, "benchmarks", "tests"):
        files[file.parent.relative_to(ROOT)] += 1
    assert {str(folder): count for folder, count in files.items() if count > MAX_FILES_PER_FOLDER} == {}


def test_class_names_are_unique() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file in python_files(*PACKAGES, "benchmarks"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_the_path_of_a_frame_in_the_architecture_document_has_at_most_forty_steps() -> None:
    assert 0 < len(WALK) <= MAX_STEPS


@pytest.mark.parametrize(("file", "name"), WALK)
def test_each_step_of_the_frame_path_in_the_architecture_document_exists_in_the_code(file: str, name: str) -> None:
    body = ast.parse((ROOT / file).read_text()).body
    for part in name.split("."):
        found = [
            n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and n.name == part
        ]
        assert found, f"{file} has no {name}"
        body = found[0].body


@pytest.mark.parametrize(
    "file",
    [file for file in python_files(*PACKAGES) if file.name == "exceptions.py"],
    ids=lambda file: file.parent.name,
)
def test_the_tree_in_the_docstring_of_an_exceptions_module_names_all_its_errors(file: Path) -> None:
    module = ast.parse(file.read_text())
    drawn = set(re.findall(r"[├└]── (\w+)", ast.get_docstring(module) or ""))
    derived = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    assert len(derived - drawn) == 1  # the root stands above the branches
    assert drawn <= derived


def test_tests_that_need_keras_are_in_the_folder_that_make_test_train_runs() -> None:
    assert "pytest -m train tests/training\n" in (ROOT / "Makefile").read_text()
    found = re.compile(r"pytest\.mark\.train\b")
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if found.search(path.read_text())]
    assert marked
    assert [path for path in marked if not path.is_relative_to(ROOT / "tests" / "training")] == []
