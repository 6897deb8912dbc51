"""What asks a process for a clean stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from ingest.runtime.signals import stop_event


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup(1)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_each_asks_for_a_clean_stop_and_again_changes_nothing(number: signal.Signals) -> None:
    stop = stop_event()
    for _ in range(2):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)


async def test_what_is_started_to_outlive_its_terminal_does() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_event()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
