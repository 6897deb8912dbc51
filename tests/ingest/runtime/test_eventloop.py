"""Tests of the signals that ask a process for a clean stop, and of coroutines that run beside its work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from ingest.runtime.eventloop import running_beside, stop_event


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


async def _work(error: Exception | None) -> None:
    if error:
        raise error


@pytest.mark.parametrize("error", [None, ValueError("the cause")])
async def test_a_coroutine_that_ends_beside_the_work_requests_a_stop_and_its_error_replaces_that_of_the_work(
    error: Exception | None,
) -> None:
    stop = asyncio.Event()

    async def block() -> None:
        async with running_beside(stop, _work(error)):
            await asyncio.wait_for(stop.wait(), 60)
            raise ValueError("the consequence")

    with pytest.raises(ValueError, match="the cause" if error else "the consequence"):
        await block()


async def test_coroutines_beside_the_work_are_cancelled_at_its_end_without_a_stop() -> None:
    stop, ended = asyncio.Event(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with running_beside(stop, work(), work()):
        await asyncio.sleep(0)
    assert (ended, stop.is_set()) == ([True, True], False)
