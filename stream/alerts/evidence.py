"""The EvidenceStore interface: storage of evidence pictures."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Protocol

from ingest.contract.records import Evidence
from ingest.runtime.files import GROUP_FILE, GROUP_FOLDER, make_folder, open_private
from stream.exceptions import StoreFailed, UnusableName


class EvidenceStore(Protocol):
    """A store of pictures by name. All methods are blocking and may be called from any thread."""

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Write a picture durably under a name and return a reference to it.

        A second picture with the same name replaces the first picture. Two pictures with the same name are equal,
        because name and picture depend only on the event. Raise StoreFailed if the store cannot write, UnusableName
        for a name whose path is outside of the store.
        """

    def read(self, name: str) -> bytes:
        """Return the picture that is stored under a name. Raise StoreFailed."""

    def delete(self, name: str) -> None:
        """Remove the picture that is stored under a name, if the picture exists."""


class FolderStore:
    """An evidence store in a local folder. A picture is written to a temporary file, synced to disk, and renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Write a picture to a temporary file, sync it to disk and rename it to its name."""
        path = self._path(name)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            make_folder(path.parent, GROUP_FOLDER)
            with os.fdopen(open_private(part, GROUP_FILE), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)  # a full disk leaves an empty temporary file
            raise StoreFailed(f"{path}: {error.strerror}: expected a writable folder with free space") from error
        return _evidence(name, path.as_uri(), data, media_type)

    def read(self, name: str) -> bytes:
        """Return the contents of a picture's file."""
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
            raise UnusableName(name)
        return path


class MemoryStore:
    """An evidence store in memory, for tests and dry runs."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Store a picture."""
        if ".." in name.split("/") or name.startswith("/"):
            raise UnusableName(name)
        self._kept[name] = data
        return _evidence(name, f"memory:{name}", data, media_type)

    def read(self, name: str) -> bytes:
        """Return a picture."""
        if name not in self._kept:
            raise StoreFailed(f"picture {name!r} is not in the evidence store")
        return self._kept[name]

    def delete(self, name: str) -> None:
        """Remove a picture."""
        self._kept.pop(name, None)


def _evidence(name: str, url: str, data: bytes, media_type: str) -> Evidence:
    return Evidence(name=name, url=url, sha256=hashlib.sha256(data).hexdigest(), media_type=media_type)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
