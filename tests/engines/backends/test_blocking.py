"""Tests of engines that compute in the thread that collects a batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engines.backends import blocking
from engines.backends.fake import FakeEngine
from engines.engine import Images
from engines.repository.store import Repository

MODELS = Path(__file__).parents[3] / "engines" / "models"
WORKERS = 2


def test_a_blocking_engine_computes_as_many_batches_in_parallel_as_it_has_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocking, "cpu_slots", lambda workers: workers + 1)  # on any number of cores
    all_compute, computing, most = threading.Barrier(WORKERS), 0, 0
    lock = threading.Lock()

    def note(_: Images) -> bool:
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)
        all_compute.wait(60.0)
        with lock:
            computing -= 1
        return False

    engine = FakeEngine(WORKERS, fails=note)
    engine.load(Repository(MODELS).open("regions"))

    def run(_: int) -> str:
        with engine.slot() as slot:
            engine.run(slot, 1)
        return threading.current_thread().name

    with ThreadPoolExecutor(WORKERS + 1) as pool:
        list(pool.map(run, range(4 * WORKERS)))
    assert most == WORKERS
    engine.close()
