"""Tests of the benchmark of the agent's spool and sender."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.edge import until


async def test_waiting_for_sent_frames_ends_with_the_error_of_a_sender_that_fails() -> None:
    async def fail() -> None:
        raise LookupError("no spool")

    with pytest.raises(LookupError, match="no spool"):
        await asyncio.wait_for(until(lambda: False, asyncio.create_task(fail())), 10.0)
