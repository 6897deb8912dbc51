"""Room on the disk: how much the spool may take, and some that is held back for when there is none."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Room:
    """The disk as it is: bytes of rows, bytes that the spool's file does not use, bytes that are free on the disk."""

    used: int
    unused: int
    free: int

    def excess(self, max_bytes: int, min_free_bytes: int) -> int:
        """Return by how many bytes the spool is over its bound, or over what others have left of the disk."""
        return max(self.used - max_bytes, min_free_bytes - self.free - self.unused, 0)


class Reserve:
    """A file that holds room on the disk, beside the spool. Methods block on the disk."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    @property
    def held(self) -> bool:
        """Tell whether the room is held."""
        try:
            return self._path.stat().st_size >= self._size  # it gets its size when all of it is allocated
        except OSError:
            return False

    def fill(self) -> bool:
        """Take the room unless it is held, where as much again is left. Return whether it is held."""
        if self.held:
            return True
        try:
            if measure(self._path.parent) < 2 * self._size:
                return False
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Let the room go. Return whether there was any."""
        held = self.held
        with contextlib.suppress(OSError):
            self._path.unlink()
        return held


def measure(folder: Path) -> int:
    """Return how many bytes of the disk are free for this process. Raise OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
