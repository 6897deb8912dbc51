"""A witness inside an agent and its capture children: what was numbered, decided, encoded and promised, and when.

Python imports a module of this name by itself when it starts and the module's folder is on ``PYTHONPATH``. With
``SIGHTLINE_WITNESS`` naming a folder, each process appends a line for each thing that it has just done to a file of
its own there; a line that was written outlives the process. ``benchmarks.killsevidence`` reads them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTURE = "edge_agent.camera.child"


def _say(file: int, what: str, name: str, epoch: int, seq: int, size: int = 0) -> None:
    os.write(file, f"{what} {name} {epoch} {seq} {size} {time.monotonic_ns()}\n".encode())


def _watch_numbers(file: int) -> None:
    """Say each number that is given, to a frame or a reading, and each that is withheld."""
    from edge_agent.camera.tally import Tally

    number, withhold = Tally.number, Tally.withhold

    def numbered(self: Tally) -> int:
        seq = number(self)
        _say(file, "number", self._camera, self._epoch, seq)
        return seq

    def withheld(self: Tally, reason: str) -> None:
        _say(file, "withhold", self._camera, self._epoch, self._settled)
        withhold(self, reason)

    Tally.number, Tally.withhold = numbered, withheld  # type: ignore[method-assign]


def _watch_encoding(file: int) -> None:
    """Say each frame that has become a record, with its bytes."""
    from edge_agent.camera import intake
    from ingest.contract.codec import encode

    def encoded(frame: Any) -> bytes:
        record = encode(frame)
        _say(file, "encode", frame.camera, frame.epoch, frame.seq, len(record))
        return record

    setattr(intake, "encode", encoded)  # noqa: B010  (it is the module's own name for it)


def _watch_promises(file: int) -> None:
    """Say each frame and each record of readings that the spool has committed."""
    from edge_agent.spool.store import SpoolStore

    keep = SpoolStore.keep

    def kept(self: SpoolStore, rows: Sequence[Any]) -> None:
        keep(self, rows)
        for row in rows:
            if row.kind != "status":
                _say(file, "promise", row.name, row.epoch, row.seq, row.size)

    SpoolStore.keep = kept  # type: ignore[method-assign]


def _watch(folder: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    file = os.open(Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}", flags, 0o644)  # ids come again
    _watch_numbers(file)
    (_watch_encoding if CAPTURE in sys.orig_argv else _watch_promises)(file)


if os.environ.get("SIGHTLINE_WITNESS"):
    _watch(os.environ["SIGHTLINE_WITNESS"])
