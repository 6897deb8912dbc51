"""Tests of the decoding of hostile bytes: any bytes raise only CodecError, and take little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.contract.codec import decode, decode_json, encode
from ingest.contract.records import Alert, Delivery, Event, Frame, Record
from ingest.exceptions import CodecError, Truncated, WrongType
from tests.ingest.contract.records import ACCOUNT, BATCH, BEAT, FRAME, MSGPACK, READINGS, fields

CLASSES = [type(record) for record in MSGPACK]


def decode_or_refuse(data: bytes) -> None:
    for cls in CLASSES:
        with suppress(CodecError):
            decode(cls, data)
    for cls in (Event, Alert, Delivery):
        with suppress(CodecError):
            decode_json(cls, data)


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff")  # an array that claims 2**32 items
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 2000)  # nested deeper than any stack
@example(b"\xd6\xff\x00\x00\x00\x00")  # msgpack's own timestamp
@example(b"\x81\xa4kind\xd4\x01\x00")
@example(b"[" * 5000)
def test_decoding_random_bytes_raises_only_codec_errors(data: bytes) -> None:
    decode_or_refuse(data)


@given(
    st.sampled_from(MSGPACK), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_decoding_records_with_flipped_bytes_raises_only_codec_errors(
    record: Record, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(record))
    for at, value in flips:
        data[at % len(data)] = value
    decode_or_refuse(bytes(data))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(MSGPACK), st.data())
def test_decoding_records_with_a_field_of_any_type_raises_only_codec_errors(
    record: Record, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([*type(record).model_fields, "kind", "v", "new"]))
    values = {**msgpack.unpackb(encode(record)), name: data.draw(VALUES)}
    decode_or_refuse(msgpack.packb(values))


@pytest.mark.parametrize("container", [b"\x80", b"\x90"], ids=["maps", "arrays"])
def test_a_small_record_of_millions_of_nested_maps_is_refused_before_their_allocation(container: bytes) -> None:
    count = 2_000_000
    with pytest.raises(Truncated, match="more than 65536 maps and arrays"):
        decode(Frame, b"\x81\xa1x\xdd" + count.to_bytes(4, "big") + container * count)


WRONG_ITEMS = 500_000


def wrong_map() -> dict[str, None]:
    return dict.fromkeys(map(str, range(WRONG_ITEMS)))


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (FRAME, lambda: {"motion": [None] * WRONG_ITEMS}),
        (FRAME, lambda: {"account": {**ACCOUNT.model_dump(), "counts": wrong_map()}}),
        (BATCH, lambda: {"items": [0] * WRONG_ITEMS}),
        (READINGS, lambda: {"values": ["x"] * WRONG_ITEMS}),
        (BEAT, lambda: {"figures": wrong_map()}),
    ],
    ids=["motion", "counts", "items", "values", "figures"],
)
def test_refusing_a_record_of_many_wrong_values_takes_little_memory(
    record: Record, wrong: Callable[[], dict[str, Any]]
) -> None:
    """One error object per wrong value would take a gigabyte for a record of 1 MB."""
    data = fields(record, **wrong())
    tracemalloc.start()
    try:
        with pytest.raises(WrongType):
            decode(type(record), data)
        assert tracemalloc.get_traced_memory()[1] < 150 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_refusing_an_event_of_many_wrong_points_takes_little_memory() -> None:
    trail = b'{"overlay": {"trail": [' + b"0," * 400_000 + b"0]}}"
    tracemalloc.start()
    try:
        with pytest.raises(WrongType):
            decode_json(Event, b'{"data": ' + trail + b"}")
        assert tracemalloc.get_traced_memory()[1] < 50 * 1024 * 1024
    finally:
        tracemalloc.stop()
