"""The runner's own decisions, with no broker: an app that is never started."""

from __future__ import annotations

import pytest

from ingest.kafka import KafkaSettings
from ingest.log import Slot
from ingest.memorylog import MemoryLog
from ingest.topics import FRAMES
from stream.exceptions import RunnerError
from stream.runner import loop
from stream.runner.echo import EchoStage
from stream.runner.loop import EXIT_FAILED, Runner


class Deaf:
    """A log whose reader is gone."""

    def error(self, *_: object, **__: object) -> None:
        raise BrokenPipeError


async def test_an_error_that_cannot_be_logged_ends_the_process_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_log", Deaf())
    codes: list[int] = []
    runner = Runner(EchoStage(), KafkaSettings(), MemoryLog(), exit=codes.append)
    with pytest.raises(BrokenPipeError):
        runner._failed(RunnerError("x"))
    with pytest.raises(BrokenPipeError):
        runner._partition_failed(RunnerError("x"), Slot(FRAMES, 0), 7)
    assert codes == [EXIT_FAILED, EXIT_FAILED]
