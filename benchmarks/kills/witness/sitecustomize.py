"""Logs inside an agent and its capture processes which frames are numbered, withheld, encoded and stored.

Python imports a module named ``sitecustomize`` at startup if the module's folder is on ``PYTHONPATH``.
``SIGHTLINE_WITNESS`` names a folder in which each process appends one line per event to its own file. A written line
survives a kill of the process. ``benchmarks.kills.evidence`` reads the files in this folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTURE = "edge_agent.camera.child"


def _write(file: int, event: str, name: str, epoch: int, seq: int, size: int = 0) -> None:
    os.write(file, f"{event} {name} {epoch} {seq} {size} {time.monotonic_ns()}\n".encode())


def _watch_numbers(file: int) -> None:
    """Log each sequence number that is assigned to a frame or reading, and each number of a withheld frame."""
    from edge_agent.camera.tally import Tally

    number, withhold = Tally.number, Tally.withhold

    def numbered(self: Tally) -> int:
        seq = number(self)
        _write(file, "number", self._camera, self._epoch, seq)
        return seq

    def withheld(self: Tally, reason: str) -> None:
        _write(file, "withhold", self._camera, self._epoch, self._settled)
        withhold(self, reason)

    Tally.number, Tally.withhold = numbered, withheld  # type: ignore[method-assign]


def _watch_encoding(file: int) -> None:
    """Log each encoded frame with its size in bytes."""
    from edge_agent.camera import intake
    from ingest.contract.codec import encode

    def encoded(frame: Any) -> bytes:
        record = encode(frame)
        _write(file, "encode", frame.camera, frame.epoch, frame.seq, len(record))
        return record

    setattr(intake, "encode", encoded)  # noqa: B010  (mypy rejects the assignment)


def _watch_promises(file: int) -> None:
    """Log each frame, and each record of readings, after the spool has committed it."""
    from edge_agent.spool.store import SpoolStore

    keep = SpoolStore.keep

    def kept(self: SpoolStore, rows: Sequence[Any], **others: Any) -> list[Any]:
        live = keep(self, rows, **others)
        for row in rows:
            if row.kind != "status":
                _write(file, "promise", row.name, row.epoch, row.seq, row.size)
        return live

    SpoolStore.keep = kept  # type: ignore[method-assign]


def _watch(folder: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    file = os.open(Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}", flags, 0o644)  # process ids are reused
    _watch_numbers(file)
    (_watch_encoding if CAPTURE in sys.orig_argv else _watch_promises)(file)


if os.environ.get("SIGHTLINE_WITNESS"):
    _watch(os.environ["SIGHTLINE_WITNESS"])
