"""Hostile records for every topic: random bytes, decompression bombs, wrong types, and header names that are not
UTF-8."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from ingest.contract import headers as h
from ingest.contract.codec import decode, decode_json, encode, encode_json
from ingest.contract.records import Alert, Delivery, Event, Record
from ingest.exceptions import CodecError

JSON = (Event, Alert, Delivery)
_NAME = "HOSTILE-NAME"
_NOT_UTF8 = b"\xff\xfe\xc3\x28\xf5\x80\x00\xed\xa0\x80\xc0\xaf"
"""Bytes that replace the header's name in an encoded batch. A client that accepts header names only as text could not
send these bytes."""
_BOMBS = (
    b"\x91" * 100_000,
    b"\xdc\xff\xff" + b"\x90" * 65_535,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"[" * 100_000,
    b'{"id":' * 50_000,
    b'{"id": ' + b"1" * 100_000 + b"}",
    b'{"data": NaN}',
    b"\xef\xbb\xbf{}",
    b"",
)
_WRONG: tuple[Any, ...] = (-1, 2**63, 1e308, float("nan"), "../..", "é", "x" * 5000, [], [[]] * 3000, {}, True)
_HEADERS: tuple[tuple[str, bytes], ...] = (
    (h.FRAMES, b"\xff\xfe"),
    (h.FRAMES, b"road/" + b"9" * 5000 + b"/1"),
    (h.ACCOUNT, b"0-99999999999999999999999 still=-1"),
    (h.LANE, b"\x00\xff"),
    (h.PIPELINE, b"\xff" * 5000),
    (h.TRACEPARENT, b"\xff"),
    ("sightline-alert", b"\xff"),
    ("", b""),
    ("__connect.errors.topic", b"\xff"),
)


class HostileRecord(NamedTuple):
    """A record to send. ``refused`` is True if no reader of its topic can decode the record."""

    value: bytes
    refused: bool
    key: bytes = b"\xff\xfe"
    headers: Sequence[tuple[str, bytes]] = ()


def hostile_records(good: Record, seed: int) -> list[HostileRecord]:
    """Return hostile records for the topic of a good record."""
    chance = random.Random(seed)
    values = [chance.randbytes(chance.randrange(3000)) for _ in range(10)] + list(_BOMBS)
    fields = json.loads(encode_json(good)) if isinstance(good, JSON) else msgpack.unpackb(encode(good))
    for name in fields:
        for wrong in chance.sample(_WRONG, 2):
            changed = {**fields, name: wrong}
            values.append(json.dumps(changed).encode() if isinstance(good, JSON) else msgpack.packb(changed))
    found = []
    for value in values:
        headers = [*chance.sample(_HEADERS, 3), (_NAME, chance.randbytes(9))]
        found.append(HostileRecord(value, _refused(type(good), value), chance.randbytes(5), headers))
    return found


def good_but_strange(value: bytes) -> HostileRecord:
    """Return a valid record with one header whose name is not UTF-8."""
    return HostileRecord(value, refused=False, key=b"road", headers=[(_NAME, b"\xff")])


def _refused(kind: type[Record], value: bytes) -> bool:
    try:
        (decode_json if issubclass(kind, JSON) else decode)(kind, value)
    except CodecError:
        return True
    return False


async def send_raw(producer: AIOKafkaProducer, topic: str, records: Sequence[HostileRecord]) -> list[int]:
    """Write records to partition 0 as the bytes of one encoded batch, and return their offsets."""
    offsets = []
    for record in records:
        batch = producer.create_batch()
        assert batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
        batch._buffer = _with_hostile_names(bytes(batch._build()))
        offsets.append((await (await producer.send_batch(batch, topic, partition=0))).offset)
    return offsets


def _with_hostile_names(batch: bytes) -> bytes:
    changed = bytearray(batch.replace(_NAME.encode(), _NOT_UTF8))
    struct.pack_into(">I", changed, 17, calc_crc32c(bytes(changed[21:])))
    return bytes(changed)
