"""The seam for where evidence is kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from ingest.contract.records import Evidence
from stream.alerts.exceptions import StoreFailed


class EvidenceStore(Protocol):
    """Keeps pictures. Methods block; they may be called from any thread."""

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Keep bytes under a name and return where. They are durable when this returns.

        The same name again replaces what was there: names are functions of the event, so it is the same picture.
        Raise StoreFailed.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return what is kept under a name. Raise StoreFailed."""
        ...

    def delete(self, name: str) -> None:
        """Remove what is kept under a name, if anything is."""
        ...


class FolderStore:
    """A local folder. A picture appears whole, by a rename, after it has reached the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Write a file, its bytes before its name."""
        path = self._path(name)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise StoreFailed(f"{path}: {error.strerror}: expected a folder that can be written to") from error
        return _evidence(name, path.as_uri(), data, media_type)

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise StoreFailed(f"{self._path(name)}: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise StoreFailed(f"{name!r}: expected a name that stays inside the store")
        return path


class MemoryStore:
    """Keeps everything in memory. For tests, and for a dry run."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Keep bytes."""
        if ".." in name.split("/") or name.startswith("/"):
            raise StoreFailed(f"{name!r}: expected a name that stays inside the store")
        self._kept[name] = data
        return _evidence(name, f"memory:{name}", data, media_type)

    def read(self, name: str) -> bytes:
        """Return bytes."""
        if name not in self._kept:
            raise StoreFailed(f"{name!r} is not kept")
        return self._kept[name]

    def delete(self, name: str) -> None:
        """Forget bytes."""
        self._kept.pop(name, None)


def _evidence(name: str, url: str, data: bytes, media_type: str) -> Evidence:
    return Evidence(name=name, url=url, sha256=hashlib.sha256(data).hexdigest(), media_type=media_type)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
