"""Stored frames of an export's candidates, read from the log once and kept on disk until the export has ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Frame
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, TopicPartition
from ingest.runtime.files import write_new
from stream.labels.candidates import CandidateFrame

_NEAR = 50
"""Maximum number of offsets between two wanted frames that are read together. The first record of a read arrives
after about 0.1 s, in which 50 frames of 40 kB could be read."""


class StoredFrames:
    """Frame records as the log has them, one file in the folder for each frame."""

    def __init__(self, log: Log, folder: Path) -> None:
        self._log, self._folder = log, folder
        folder.mkdir(exist_ok=True)
        for unfinished in folder.glob("*.part"):
            unfinished.unlink()

    def frame(self, frame: FrameId) -> Frame | None:
        """Return a frame that ``fetch`` has read; None if the log did not have the frame."""
        path = self._path(frame)
        return decode(Frame, path.read_bytes()) if path.exists() else None

    async def expired(self, frames: Iterable[CandidateFrame]) -> set[FrameId]:
        """Return the frames that are neither in the folder nor in the log. Raise LogUnavailable."""
        found: set[FrameId] = set()
        begins: dict[str, dict[int, int]] = {}
        for one in frames:
            if one.source.topic not in begins:
                begins[one.source.topic] = dict(await self._log.beginnings(one.source.topic))
            first = begins[one.source.topic].get(one.source.partition, one.source.offset + 1)
            if one.source.offset < first and not self._path(one.id).exists():
                found.add(one.id)
        return found

    async def fetch(self, frames: Iterable[CandidateFrame], on_frame: Callable[[], None] = lambda: None) -> None:
        """Read the frames that are not in the folder yet from the log into the folder. Raise LogUnavailable."""
        wanted: defaultdict[TopicPartition, dict[int, FrameId]] = defaultdict(dict)
        for one in frames:
            if self._path(one.id).exists():
                on_frame()
            else:
                wanted[TopicPartition(one.source.topic, one.source.partition)][one.source.offset] = one.id
        for tp, ids in wanted.items():
            begin = (await self._log.beginnings(tp.topic)).get(tp.partition, 0)
            end = (await self._log.ends(tp.topic)).get(tp.partition, 0)
            for run in runs([offset for offset in sorted(ids) if begin <= offset < end]):
                async with aclosing(self._log.read(*tp, run[0], run[-1] + 1)) as records:
                    async for record in records:
                        if record.offset in ids and _is_frame(record.value, ids[record.offset]):
                            self._keep(ids[record.offset], record.value)
                            on_frame()

    def _keep(self, frame: FrameId, record: bytes) -> None:
        path = self._path(frame)
        write_new(path.with_suffix(".part"), record)
        path.with_suffix(".part").rename(path)

    def _path(self, frame: FrameId) -> Path:
        return self._folder / f"{frame.camera}-{frame.epoch}-{frame.seq}.frame"


def runs(offsets: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield groups of sorted offsets that are near each other, so that each group is one read."""
    first = 0
    for n in range(1, len(offsets) + 1):
        if n == len(offsets) or offsets[n] - offsets[n - 1] > _NEAR:
            yield offsets[first:n]
            first = n


def _is_frame(record: bytes, frame: FrameId) -> bool:
    try:
        return decode(Frame, record).id == frame
    except CodecError:
        return False
