"""The stage ``analyse``: results in, events out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingest import headers as h
from ingest.codec import decode, encode_json
from ingest.configstore import Config
from ingest.deadletter import parked
from ingest.exceptions import CodecError
from ingest.log import Log, LogRecord, Outgoing, Slot
from ingest.records import Event, Result
from ingest.topics import EVENTS, RESULTS, partition_for
from stream.analyse.analyser import Analyser
from stream.analyse.tracker import ByteTracker, Tracker
from stream.readback import tail
from stream.runner.processor import Work

__all__ = ["AnalyseStage", "Interpreter"]

NAME = "analyse"
TAIL_S = 120.0
"""How much of its input a new owner reads back. A track lives as long as its object is in the picture: a vehicle for
seconds, somebody who waits for a minute or two. One that is older gets another name after a restart, and its rules
may tell of it once more."""
TAIL_RECORDS = 20_000
"""And no more than this: about three minutes of a busy partition, read in a second or two."""


class AnalyseStage:
    """Tracks objects and applies the rules of a site. ``config`` is how the site stood when the process started."""

    name = NAME
    topics = (RESULTS,)

    def __init__(
        self, config: Config, event_partitions: int, make_tracker: Callable[[], Tracker] = ByteTracker
    ) -> None:
        self._config = config
        self._partitions = event_partitions
        self._make_tracker = make_tracker

    async def open(self, slot: Slot, position: int, log: Log) -> Interpreter:
        """Make a partition's state by reading back its last minutes, of which nothing is told again."""
        interpreter = Interpreter(self._config, self._partitions, self._make_tracker)
        async for record in tail(log, slot, position, TAIL_S, TAIL_RECORDS):
            interpreter.process(record)
        return interpreter


class Interpreter:
    """One partition: an analyser per camera, lane and pipeline."""

    def __init__(self, config: Config, event_partitions: int, make_tracker: Callable[[], Tracker]) -> None:
        self._rules = config.camera_rules
        self._sites = {camera.name: camera.site for camera in config.cameras}
        self._partitions = event_partitions
        self._make_tracker = make_tracker
        self._analysers: dict[tuple[str, str, str], Analyser] = {}

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Take one result and return its events."""
        try:
            result = decode(Result, record.value)
        except CodecError as error:
            return [Work((parked(record, NAME, error),), (record.offset,))]
        events = self._analyser(result).step(result)
        return [Work(tuple(self._outgoing(event, result) for event in events), (record.offset,))]

    def tick(self) -> Sequence[Work]:
        """Nothing is held back."""
        return ()

    def flush(self) -> Sequence[Work]:
        """Nothing is held back."""
        return ()

    @property
    def deadline(self) -> float | None:
        """Nothing is held back."""
        return None

    def _analyser(self, result: Result) -> Analyser:
        key = (result.camera, result.lane, result.pipeline)
        if key not in self._analysers:
            rules = [r for r in self._rules if (r.camera, r.pipeline) == (result.camera, result.pipeline)]
            self._analysers[key] = Analyser(rules, self._sites.get(result.camera, ""), self._make_tracker)
        return self._analysers[key]

    def _outgoing(self, event: Event, result: Result) -> Outgoing:
        headers = h.cloud_event_headers() | h.frame_headers([result.id], result.lane, result.traceparent)
        partition = partition_for(result.camera, self._partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=result.camera.encode(), headers=headers)
