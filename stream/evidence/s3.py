"""The evidence store in a bucket of S3, or of a server with the same protocol."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from ingest.contract.records import Evidence
from ingest.exceptions import ConfigError
from stream.evidence.store import StoredFile, reference, require_name
from stream.exceptions import NotStored, StoreFailed

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REQUEST_S = 30.0
"""Time limit in seconds of one request to the evidence store. The limit is shorter than the 60 s after which the
watchdog ends a worker without progress."""
_CONNECT_TIMEOUT = "5s"
_RETRIES = 1
_RETRY_TIME = timedelta(seconds=10)
"""Maximum time for which a failed request to the store is repeated. If a request still fails after this time, the
worker repeats its work later."""
_BUFFER_BYTES = 1024 * 1024
"""Size in bytes of the parts in which a file is read."""
_LIST_CHUNK = 1_000


class BucketStore:
    """An evidence store in a bucket. Keys, region and endpoint come from the environment variables of AWS.

    A file is uploaded in one request, or in parts that become visible together. Raise ConfigError for an address that
    is not ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``.
    """

    def __init__(self, address: str, request_s: float = REQUEST_S) -> None:
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.hostname or parts.query or parts.username:
            raise ConfigError("evidence", "--evidence", address, "s3://BUCKET or s3://BUCKET/PREFIX")
        prefix = parts.path.strip("/")
        self._address = f"s3://{parts.netloc}/{prefix}".rstrip("/")
        self._store = S3Store(
            parts.netloc,
            prefix=prefix or None,
            config={"disable_bulk_delete": True},  # servers of the S3 protocol lack it more often than single deletes
            client_options={
                "allow_http": _is_plain_http(),
                "timeout": f"{request_s:g}s",
                "connect_timeout": _CONNECT_TIMEOUT,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME},
        )

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Upload a file."""
        require_name(name)
        try:
            obstore.put(self._store, name, data, attributes={"Content-Type": media_type})
        except (BaseError, OSError) as error:  # also a bucket that does not exist
            raise self._failed(name, error) from error
        return reference(name, f"{self._address}/{name}", data, media_type)

    def open(self, name: str) -> BinaryIO:
        """Open a file, whose parts are requested as they are read."""
        require_name(name)
        with self._failing(name):
            size = obstore.head(self._store, name)["size"]
        return io.BufferedReader(_BucketFile(self, name, size), _BUFFER_BYTES)

    def delete(self, name: str) -> None:
        """Remove a file."""
        require_name(name)
        try:
            with self._failing(name):
                obstore.delete(self._store, name)
        except NotStored:
            return

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files whose names begin with ``prefix``."""
        folder = prefix.rpartition("/")[0]
        try:
            for part in obstore.list(self._store, folder or None, chunk_size=_LIST_CHUNK, return_arrow=False):
                for found in part:
                    if found["path"].startswith(prefix):
                        stored_ns = int(found["last_modified"].timestamp()) * 10**9
                        yield StoredFile(found["path"], found["size"], stored_ns)
        except (BaseError, OSError) as error:
            raise self._failed(folder, error) from error

    def remove_parts(self, before_ns: int) -> int:
        """Return 0, because the bucket's own rule for incomplete uploads removes them."""
        return 0

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes of a file from ``start`` on."""
        with self._failing(name):
            return bytes(obstore.get_range(self._store, name, start=start, length=length))

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotStored(name) from None
        except (BaseError, OSError) as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> StoreFailed:
        reason = str(error).partition("\n")[0][:300]
        return StoreFailed(
            f"{self._address}/{name}: {reason}: expected a bucket that this service may read and write. Check the "
            "environment variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        )


class _BucketFile(io.RawIOBase):
    """A file in a bucket as a seekable stream."""

    def __init__(self, store: BucketStore, name: str, size: int) -> None:
        self._store, self._name, self._size, self._at = store, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes a memoryview
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = self._store.part(self._name, self._at, length)
        self._at += length
        return length

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


def _is_plain_http() -> bool:
    """Return whether the endpoint named in the environment has no TLS."""
    return any(os.environ.get(name, "").lower().startswith("http://") for name in _ENDPOINTS)
