"""Disk of a few MB that a test may fill or make read-only. The disk is a tmpfs, and mounting needs root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

__all__ = ["SmallDisk"]


class SmallDisk:
    """A tmpfs mounted on a folder. The context manager unmounts the disk at the end."""

    def __init__(self, folder: Path, size_mb: int = 8) -> None:
        self.folder, self._size_mb = folder, size_mb

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir()
        if not _run("mount", "-t", "tmpfs", "-o", f"size={self._size_mb}m", "tmpfs", str(self.folder)):
            pytest.skip("a tmpfs cannot be mounted here: run as root")
        return self

    def __exit__(self, *error: object) -> None:
        _run("umount", "-l", str(self.folder))

    def fill(self, leave_bytes: int = 0) -> None:
        """Fill the disk with a file until only ``leave_bytes`` are free."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                file.truncate(max(0, file.tell() - leave_bytes))

    def empty(self) -> None:
        """Delete the file that ``fill`` wrote."""
        (self.folder / "filler").unlink()

    def read_only(self, yes: bool) -> None:
        """Make the disk read-only, or writable again."""
        assert _run("mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.folder))


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
