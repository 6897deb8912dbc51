"""Read fetched record batches without an error, whatever bytes a producer wrote, and stop reading without an error.

aiokafka itself raises an error for a header name that is not UTF-8, and decompresses without a size limit. An error
while reading a batch would stop every consumer of the partition at the same offset, again after every restart.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.runtime import logs

_log = logs.get("ingest.kafka.fetched")

MAX_UNPACKED_BYTES = 4 * MAX_RECORD_BYTES
"""Largest size of a batch after decompression, in bytes: four records of the largest size. This project's producers
make smaller batches: a single record, or at most 1 MiB."""
UNREADABLE = "sightline-unreadable-batch"
"""Name of the header that marks a record as the replacement of an unreadable batch. The header's value is the
error."""

_close = fetcher.Fetcher.close
_CODEC_BITS, _GZIP, _SNAPPY, _LZ4, _ZSTD = 0x07, 1, 2, 3, 4
_MAGIC, _MAGIC_AT, _ATTRIBUTES_AT, _HEADER_BYTES = 2, 16, 21, 61
"""Numbers of Kafka's protocol: the version of a batch, and the byte positions of the version, the attributes and the
records in a batch."""
_FIRST_RATIO = 16
"""Assumed compression ratio, which gives the first size of the output buffer. JSON compresses by a factor of 5 to
10."""
_GROWTH = 8
"""Factor by which the output buffer grows when it is too small. A buffer of the largest size is not used from the
start, because zeroing it takes up to 100 ms."""


class ReadableRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """The record batches of one fetch response. This class replaces aiokafka's reader of a fetch response."""

    def next_batch(self) -> Any:
        """Return the next record batch of the fetch response, None after the last batch."""
        raw, batch = self._next_slice, super().next_batch()
        return ReadableBatch(raw, batch) if raw is not None and raw[_MAGIC_AT] == _MAGIC else batch


class ReadableBatch:
    """A batch that never raises an error while its records are read.

    In a header name that is not UTF-8, the invalid bytes are escaped. A batch that cannot be read becomes one record
    at the batch's last offset, with the batch's bytes as the value. Every service refuses a batch that cannot be
    read, and writes a dead letter.
    """

    def __init__(self, raw: memoryview, batch: Any) -> None:
        self._raw, self._batch = raw, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """Return the only record of a control batch, which marks the end of a transaction."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Yield the records of the batch. Raise no error except MemoryError."""
        batch, offset = self._batch, -1
        try:
            plain = _plain(self._raw)
            try:
                for record in DefaultRecordBatch(plain):
                    yield record
                    offset = record.offset
            except UnicodeDecodeError:
                for record in _LenientBatch(plain):
                    if record.offset > offset:
                        yield record
                        offset = record.offset
        except MemoryError:
            raise
        except Exception as error:
            last = batch.next_offset - 1
            _log.warning("kafka_batch_unreadable", offset=last, bytes=len(self._raw), error=repr(error)[:500])
            headers = [(UNREADABLE, repr(error)[:500].encode())]
            yield _DefaultRecordPy(last, batch.max_timestamp, batch.timestamp_type, None, bytes(self._raw), headers)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    def __init__(self, plain: bytes | memoryview) -> None:
        super().__init__(plain)
        self._buffer = _EscapedText(plain)


class _EscapedText(bytearray):
    """Bytes of which every slice decodes as text. Bytes that are not UTF-8 are escaped, as in ``\\xff``."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _EscapedText(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, "backslashreplace")


def _plain(raw: memoryview) -> bytes | memoryview:
    """Return a batch with its records decompressed.

    Raise CorruptRecordException, or an error of the compression library.
    """
    (attributes,) = struct.unpack_from(">h", raw, _ATTRIBUTES_AT)
    codec = attributes & _CODEC_BITS
    if not codec:
        return raw
    header = bytearray(raw[:_HEADER_BYTES])
    struct.pack_into(">h", header, _ATTRIBUTES_AT, attributes & ~_CODEC_BITS)
    return bytes(header) + _unpacked(codec, bytes(raw[_HEADER_BYTES:]))


def _unpacked(codec: int, data: bytes) -> bytes:
    """Decompress data. Raise CorruptRecordException if the result would exceed ``MAX_UNPACKED_BYTES``."""
    if codec == _SNAPPY:
        _require_snappy_size(data)
        return bytes(snappy_decode(data))
    module = {_GZIP: cramjam.gzip, _LZ4: cramjam.lz4, _ZSTD: cramjam.zstd}.get(codec)
    if module is None:
        raise CorruptRecordException(f"batch has the compression {codec}: expected 1 to 4 (gzip, snappy, lz4, zstd)")
    size = min(max(len(data), 1) * _FIRST_RATIO, MAX_UNPACKED_BYTES)
    while True:
        buffer = bytearray(size)
        try:
            return bytes(memoryview(buffer)[: module.decompress_into(data, buffer)])
        except cramjam.DecompressionError as error:
            if size == MAX_UNPACKED_BYTES:
                problem = f"{len(data)} bytes do not decompress to at most {size} bytes: {error}"
                raise CorruptRecordException(problem) from error
        size = min(size * _GROWTH, MAX_UNPACKED_BYTES)


def _require_snappy_size(data: bytes) -> None:
    """Raise CorruptRecordException if snappy data declares a decompressed size over ``MAX_UNPACKED_BYTES``.

    The data is one snappy block, or a series of blocks in the framing of the library snappy-java (Xerial).
    """
    blocks = [data]
    if data[:8] == b"\x82SNAPPY\x00":
        blocks, at = [], 16
        while at < len(data):
            (size,) = struct.unpack_from(">i", data, at)
            if size <= 0:
                raise CorruptRecordException(f"block of snappy data has a size of {size} bytes: expected more than 0")
            blocks.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    declared = sum(cramjam.snappy.decompress_raw_len(block) for block in blocks)
    if declared > MAX_UNPACKED_BYTES:
        raise CorruptRecordException(
            f"batch has {declared} bytes after decompression: expected at most {MAX_UNPACKED_BYTES}"
        )


def install() -> None:
    """Make every consumer of aiokafka in this process read batches as ``ReadableRecords``, and stop without an error
    during an outage."""
    fetcher.MemoryRecords = ReadableRecords
    fetcher.Fetcher.close = close_fetcher


async def close_fetcher(self: fetcher.Fetcher) -> None:
    """Cancel the requests of a consumer, then close its fetcher.

    A request that has failed waits before its next attempt. aiokafka raises the CancelledError of such a request in
    the task that stops the consumer. A task that ends by CancelledError looks as if somebody had cancelled it, so the
    reader of a topic would end for ever without an error.
    """
    self._fetch_task.cancel()
    for task in self._pending_tasks:
        task.cancel()
    await asyncio.gather(self._fetch_task, *self._pending_tasks, return_exceptions=True)
    self._pending_tasks.clear()
    await _close(self)
