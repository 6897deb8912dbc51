"""Tests of the number of processors that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.runtime.cpus import cpu_count


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the control groups, of which the process is in ``/pod/one``, with eight processors."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "pod" / "one").mkdir(parents=True)
    (tmp_path / "self").write_text("0::/pod/one\n")
    return tmp_path


def count(groups: Path) -> int:
    return cpu_count(groups / "self", groups)


def test_only_processors_that_the_process_may_run_on_count(groups: Path) -> None:
    assert count(groups) == 8


def test_all_processors_count_on_systems_that_cannot_restrict_a_process(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_count(groups / "missing", groups) == 64


@pytest.mark.parametrize(
    ("own", "around", "expected"),
    [
        ("200000 100000", "max 100000", 2),
        ("150000 100000", "max 100000", 2),
        ("5000 100000", "max 100000", 1),
        ("max 100000", "300000 100000", 3),
        ("400000 100000", "300000 100000", 3),
        ("9900000 100000", "max 100000", 8),
        ("max 100000", "max 100000", 8),
        ("", "0", 8),
        ("1 0", "a b", 8),
    ],
)
def test_the_smallest_quota_of_the_control_groups_counts_rounded_up(
    groups: Path, own: str, around: str, expected: int
) -> None:
    (groups / "pod" / "one" / "cpu.max").write_text(own)
    (groups / "pod" / "cpu.max").write_text(around)
    assert count(groups) == expected


def test_in_a_container_the_quota_is_in_the_folder_of_all_groups(groups: Path) -> None:
    (groups / "self").write_text("1:name=systemd:/\n0::/\n")
    (groups / "cpu.max").write_text("250000 100000\n")
    assert count(groups) == 3


def test_a_group_whose_folder_the_process_cannot_see_has_no_quota(groups: Path) -> None:
    (groups / "self").write_text("0::/../../elsewhere\n")
    assert count(groups) == 8
