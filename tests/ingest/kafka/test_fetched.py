"""Tests of reading fetched batches: compression, hostile header names, decompression bombs, damage."""

from __future__ import annotations

import asyncio
import struct

import cramjam
import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from ingest.kafka.fetched import MAX_UNPACKED_BYTES, UNREADABLE, ReadableRecords

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
Header = tuple[str, bytes]


def batch(values: list[bytes], codec: int = 0, headers: list[Header] | None = None) -> bytes:
    """Return the bytes of a batch, as a producer of aiokafka makes it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 1 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=offset, key=b"k", value=value, headers=headers or [])
    return bytes(builder.build())


def records(raw: bytes) -> list[tuple[int, bytes, list[Header]]]:
    fetched, found = ReadableRecords(raw), []
    while fetched.has_next():
        found += [(r.offset, r.value, list(r.headers)) for r in fetched.next_batch()]
    return found


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_record_batches_of_every_compression_are_read(codec: int) -> None:
    values = [b"x" * 5000, b"", b"last"]
    raw = batch(values, codec, [("name", b"value")])
    assert records(raw + raw) == 2 * [(n, value, [("name", b"value")]) for n, value in enumerate(values)]


def test_a_record_batch_is_validated_against_the_checksum_of_its_compressed_bytes() -> None:
    whole = batch([b"x" * 5000], CODECS["lz4"])
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    assert ReadableRecords(whole).next_batch().validate_crc()
    assert not ReadableRecords(damaged).next_batch().validate_crc()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_header_name_that_is_not_utf8_is_escaped_and_the_following_records_are_read(codec: int) -> None:
    plain = batch([b"first", b"second"], 0, [("name", b"\xfe")]).replace(b"name", b"n\xff\xfee")
    raw = plain if not codec else compressed(plain, codec)
    assert records(raw) == [(0, b"first", [("n\\xff\\xfee", b"\xfe")]), (1, b"second", [("n\\xff\\xfee", b"\xfe")])]


def compressed(plain: bytes, codec: int) -> bytes:
    data = {
        1: cramjam.gzip.compress,
        2: cramjam.snappy.compress_raw,
        3: cramjam.lz4.compress,
        4: cramjam.zstd.compress,
    }[codec](plain[61:])
    return framed(plain, codec, bytes(data))


def framed(plain: bytes, codec: int, data: bytes) -> bytes:
    header = bytearray(plain[:61])
    struct.pack_into(">h", header, 21, codec)
    struct.pack_into(">i", header, 8, len(data) + 61 - 12)
    return bytes(header) + data


@pytest.mark.parametrize("codec", [c for c in CODECS.values() if c], ids=[c for c in CODECS if c != "none"])
def test_a_decompression_bomb_becomes_one_record_at_the_last_offset_of_its_batch(codec: int) -> None:
    bomb = compressed(batch([b"a", b"b", b"c"])[:61] + bytes(MAX_UNPACKED_BYTES + 1), codec)
    (found,) = records(bomb)
    assert found[:2] == (2, bomb)
    ((name, reason),) = found[2]
    assert name == UNREADABLE
    assert str(MAX_UNPACKED_BYTES).encode() in reason


@pytest.mark.parametrize("data", [b"\x82SNAPPY\x00\xff\xff\xff\xff no records at all", b""], ids=["damaged", "empty"])
@pytest.mark.parametrize("codec", [*CODECS.values(), 7], ids=[*CODECS, "unknown"])
def test_a_batch_with_damaged_records_becomes_one_record_that_holds_the_batch(codec: int, data: bytes) -> None:
    raw = framed(batch([b"a", b"b"]), codec, data)
    good = batch([b"good"])
    found = records(raw + good)
    assert [(offset, value) for offset, value, _ in found] == [(1, raw), (0, b"good")]
    assert found[0][2][0][0] == UNREADABLE


class BrokenClient:
    """A client of a broker that is gone."""

    async def send(self, node_id: int, request: object) -> None:
        """Fail."""
        raise KafkaConnectionError("gone")


async def test_a_consumer_stops_without_an_error_while_a_failed_fetch_waits_for_its_next_attempt() -> None:
    fetcher = Fetcher.__new__(Fetcher)
    fetcher._client, fetcher._retry_backoff, fetcher._fetch_waiters = BrokenClient(), 3600.0, set()
    fetcher._fetch_task = asyncio.create_task(asyncio.sleep(3600.0))
    fetch = asyncio.create_task(fetcher._proc_fetch_request(None, 1, type("Request", (), {"topics": ()})()))
    await asyncio.sleep(0)  # the request fails, and the task waits
    fetcher._pending_tasks = {fetch}
    await fetcher.close()
    assert fetch.cancelled()
    assert fetcher._fetch_task.cancelled()
