"""Tests of the number of processors that a process may use."""

from __future__ import annotations

import os

import pytest

from ingest.runtime.cpus import cpu_count


def test_only_processors_that_the_process_may_use_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_count() == 2


def test_all_processors_count_on_systems_that_cannot_restrict_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_count() == 8
