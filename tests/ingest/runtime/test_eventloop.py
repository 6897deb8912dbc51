"""Tests of the signals that ask a process for a clean stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from ingest.runtime.eventloop import stop_event


@pytest.fixture(autouse=True)
def restore_signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup(1)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_each_stop_signal_sets_the_stop_event_and_a_second_signal_has_no_effect(number: signal.Signals) -> None:
    stop = stop_event()
    for _ in range(2):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 60)


async def test_an_ignored_hangup_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_event()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
