"""Disk space of the spool: its size limits, and a reserve file that the spool deletes when the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.store import SpoolStore
from ingest.runtime.files import open_private
from ingest.site import DiskConfig


@dataclass(frozen=True, slots=True)
class Room:
    """Sizes in bytes: all rows of the spool, the unused part of the spool's file, and the free space of the disk."""

    used: int
    unused: int
    free: int

    def excess(self, max_bytes: int, min_free_bytes: int) -> int:
        """Return how many bytes of rows must expire to satisfy the limits ``max_bytes`` and ``min_free_bytes``."""
        return max(self.used - max_bytes, min_free_bytes - self.free - self.unused, 0)


class Reserve:
    """File in the spool's folder that holds disk space in reserve for a full disk.

    All methods block on the disk.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    @property
    def held(self) -> bool:
        """Return whether the reserve file exists in its full size."""
        try:
            return self._path.stat().st_size >= self._size  # the file gets its size after its last block is allocated
        except OSError:
            return False

    def fill(self) -> bool:
        """Create the reserve file if at least twice the file's size is free on the disk.

        Return whether the reserve file exists in its full size.
        """
        if self.held:
            return True
        try:
            if shutil.disk_usage(self._path.parent).free < 2 * self._size:
                return False
            with os.fdopen(open_private(self._path), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Delete the reserve file. Return whether the file existed in its full size."""
        held = self.held
        with contextlib.suppress(OSError):
            self._path.unlink()
        return held


class SpoolSpace:
    """Limiter that keeps a spool within its share of the disk.

    All methods block on the disk, and must be called in the thread that uses ``store``.
    """

    def __init__(self, store: SpoolStore, config: DiskConfig) -> None:
        self._store, self._config = store, config
        self.reserve = Reserve(store.path.with_suffix(".reserve"), config.reserve_bytes)

    def release(self) -> bool:
        """Delete the reserve file, and write SQLite's write-ahead log back into the database.

        Each small commit adds a few KB to the write-ahead log. Writing the log back empties the log, and needs disk
        space only for new pages of the database. Return whether the disk may have more free space now.
        """
        released = self.reserve.release()
        try:
            self._store.checkpoint()
        except SpoolUnavailable:
            return released
        return True

    def fit(self, evidence: Sequence[str]) -> int:
        """Expire rows until the spool is within its disk limits. Frames of the cameras in ``evidence`` expire last.

        Return the number of bytes by which the spool still exceeds its disk limits.
        """
        self._give_back()
        config = self._config
        while excess := self._measured().excess(config.max_bytes, config.min_free_bytes):
            if not self._store.expire_over(excess, evidence):
                break
        self._give_back()
        return excess

    def _give_back(self) -> None:
        """Shrink the spool's file until enough bytes of the disk are free, or until the file has no unused pages."""
        wanted = max(self._config.min_free_bytes, 0 if self.reserve.held else 2 * self._config.reserve_bytes)
        room, before = self._measured(), None
        while room.free < wanted and room != before:
            self._store.vacuum()
            room, before = self._measured(), room

    def _measured(self) -> Room:
        free = shutil.disk_usage(self._store.path.parent).free
        return Room(self._store.used_bytes(), self._store.unused_bytes(), free)
