"""The EvidenceStore interface: storage of evidence pictures and clips."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from ingest.contract.records import Evidence
from stream.exceptions import NotStored, UnusableName


class StoredFile(NamedTuple):
    """The name and size of a file in an evidence store, and the Unix time in ns at which the file was written.

    ``size`` is the number of bytes that the file takes in the store.
    """

    name: str
    size: int
    stored_ns: int


class EvidenceStore(Protocol):
    """A store of evidence files by name, such as ``gate/2026-01-02/030405.678Z-EVENT-original.jpg``.

    All methods are blocking and may be called from any thread. All methods raise StoreFailed if the store cannot be
    reached, written or read, and UnusableName unless a name is a relative path without ``..``.
    """

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Write a file durably under a name and return a reference to it. The file appears complete or not at all.

        A second file with the same name replaces the first file. The returned reference has the SHA-256 hash of
        ``data``.
        """

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. The returned stream is seekable, and the caller must close it.

        Raise NotStored if the store has no file of the given name.
        """

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files whose names begin with ``prefix``, in any order."""

    def remove_parts(self, before_ns: int) -> int:
        """Remove the incomplete files that a killed process left before a Unix time in ns, and return their
        number."""


class MemoryStore:
    """An evidence store in memory, for tests and dry runs."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Store a file."""
        require_name(name)
        self._files[name] = data, time.time_ns()
        return reference(name, f"memory:{name}", data, media_type)

    def open(self, name: str) -> BinaryIO:
        """Open a stored file."""
        require_name(name)
        if name not in self._files:
            raise NotStored(name)
        return io.BytesIO(self._files[name][0])

    def delete(self, name: str) -> None:
        """Remove a file."""
        require_name(name)
        self._files.pop(name, None)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the stored files whose names begin with ``prefix``."""
        for name, (data, stored_ns) in list(self._files.items()):
            if name.startswith(prefix):
                yield StoredFile(name, len(data), stored_ns)

    def remove_parts(self, before_ns: int) -> int:
        """Return 0, because all files in memory are complete."""
        return 0


def reference(name: str, url: str, data: bytes, media_type: str) -> Evidence:
    """Return the reference to a stored file, with the SHA-256 hash and the size of its contents."""
    digest = hashlib.sha256(data).hexdigest()
    return Evidence(name=name, url=url, sha256=digest, media_type=media_type, size=len(data))


def require_name(name: str) -> None:
    """Raise UnusableName unless a name is a relative path without ``..``, empty parts and control characters."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UnusableName(name)
