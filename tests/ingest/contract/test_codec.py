"""Tests of encoding and decoding, and of every kind of malformed bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.contract.codec import MAX_RECORD_BYTES, decode, decode_json, encode, encode_json
from ingest.contract.records import (
    MAX_EMBEDDING,
    Alert,
    AlertData,
    Batch,
    BatchItem,
    Box,
    CameraStatus,
    Delivery,
    Detection,
    Embedding,
    EpochEnd,
    Event,
    EventData,
    Evidence,
    Fit,
    Frame,
    FrameRef,
    Heartbeat,
    Inner,
    Overlay,
    Readings,
    Record,
    Redacted,
    Region,
    Result,
    RoutedFrame,
    WithheldInterval,
)
from ingest.exceptions import CodecError, Oversize, Truncated, UnknownVersion, WrongKind, WrongType
from tests.modelinput import model_input

ACCOUNT = WithheldInterval(camera="gate", epoch=5, first=0, last=6, counts={"still": 4, "rate": 3})
FRAME = Frame(
    camera="gate",
    epoch=5,
    seq=7,
    captured_ns=1_700_000_000_000_000_001,
    width=640,
    height=360,
    image=b"\xff\xd8\xff\x00",
    quality=40,
    scaled_from=(1280, 720),
    redacted=Redacted(masks=1, faces=2, held=1, method="pixelate", models=("faces.onnx@sha256:0123456789ab",)),
    motion=(Box(1.0, 2.5, 30.0, 40.0),),
    account=ACCOUNT,
)
REGION = Region(Box(0.0, 0.0, 640.0, 360.0), Fit(0.003125, 0.00278, 0.0, 0.0), Inner(0, 0, 2, 1))
ITEM = BatchItem(
    camera="gate",
    epoch=5,
    seq=7,
    lane="live",
    captured_ns=1,
    width=640,
    height=360,
    source=FrameRef("frames", 0, 17),
    pipelines=("cars",),
    outcome="classify",
    regions=(REGION,),
    withheld={"still": 2},
)
BATCH = Batch(pipeline="cars", height=2, width=2, channels=3, items=(ITEM,), pixels=bytes(range(6)))
RESULT = Result(
    **ITEM.fields_of(RoutedFrame),
    pipeline="cars",
    finished_ns=2,
    outcome="classified",
    detections=(
        Detection(
            box=Box(1.0, 2.0, 3.0, 4.0),
            label="car",
            class_id=2,
            score=0.5,
            embeddings=(Embedding(name="look", model="appearance@1", values=bytes(range(256))),),
        ),
    ),
)
READINGS = Readings(
    sensor="t-1",
    epoch=1,
    seq=0,
    quantity="temperature",
    unit="Cel",
    times_ns=(1, 2),
    values=(1.5, 2.0),
    quality=(0, 1),
)
BEAT = Heartbeat(
    service="agent",
    instance="a",
    at_ns=9,
    cameras=(CameraStatus(camera="gate", epoch=5, state="running"),),
    accounts=(ACCOUNT,),
    ended=(EpochEnd(camera="gate", epoch=4, last=-1, clean=False, reported=3),),
    figures={"lag": 0.5},
)
MSGPACK: list[Record] = [FRAME, BATCH, RESULT, READINGS, BEAT]

DATA = EventData(incident="i", rule="fence", camera="gate", summary="someone", overlay=Overlay(shape=((0.0, 1.0),)))
ENVELOPE = {
    "id": "e1",
    "source": "sightline",
    "type": "sightline.zone",
    "subject": "gate",
    "time": "2026-01-02T03:04:05Z",
}
EVENT = Event(**ENVELOPE, data=DATA)
EVIDENCE = Evidence(name="e1.jpg", url="file:///e1.jpg", sha256="00", media_type="image/jpeg", size=4)
ALERT = Alert(**ENVELOPE, data=AlertData(**DATA.model_dump(), event="e1", evidence=(EVIDENCE,)))
DELIVERY = Delivery(
    alert="a", incident="i", receiver="pager", state="delivered", attempt=1, status=200, attempted_ns=1
)
JSON: list[Record] = [EVENT, ALERT, DELIVERY]

CLASSES = [type(record) for record in MSGPACK]


def fields(record: Record, **changed: Any) -> bytes:
    """Return a record's bytes with some fields changed, or removed where the value is None."""
    values = {**msgpack.unpackb(encode(record)), **changed}
    data: bytes = msgpack.packb({name: value for name, value in values.items() if value is not None})
    return data


@pytest.mark.parametrize("record", MSGPACK, ids=lambda r: r.KIND)
def test_a_record_is_equal_after_encoding_and_decoding(record: Record) -> None:
    assert decode(type(record), encode(record)) == record


@pytest.mark.parametrize("record", JSON, ids=lambda r: r.KIND)
def test_a_json_record_is_equal_after_encoding_and_decoding(record: Record) -> None:
    assert decode_json(type(record), encode_json(record)) == record


def test_images_of_a_decoded_batch_are_padded_to_the_input_size_of_the_model() -> None:
    tensor = model_input(decode(Batch, encode(BATCH)), pad=9)
    assert tensor.shape == (1, 2, 2, 3)
    assert tensor.dtype == np.uint8
    assert tensor.ravel().tolist() == [*range(6), *[9] * 6]


@pytest.mark.parametrize("record", MSGPACK, ids=lambda r: r.KIND)
def test_a_record_cut_at_any_length_is_refused_as_truncated(record: Record) -> None:
    data = encode(record)
    for length in range(len(data)):
        with pytest.raises(Truncated):
            decode(type(record), data[:length])


def test_a_record_with_trailing_bytes_is_refused() -> None:
    with pytest.raises(Truncated):
        decode(Frame, encode(FRAME) + b"\x00")


def test_a_record_over_the_size_limit_is_refused_when_encoding_and_decoding() -> None:
    data = encode(FRAME)
    with pytest.raises(Oversize, match=rf"{len(data)} bytes is over the limit of {len(data) - 1}") as raised:
        decode(Frame, data, max_bytes=len(data) - 1)
    assert (raised.value.size_bytes, raised.value.limit_bytes) == (len(data), len(data) - 1)
    with pytest.raises(Oversize):
        encode(FRAME, max_bytes=len(data) - 1)
    with pytest.raises(Oversize):
        decode(Frame, bytes(MAX_RECORD_BYTES + 1))
    with pytest.raises(Oversize):
        decode_json(Event, encode_json(EVENT), max_bytes=10)


@pytest.mark.parametrize("version", [(2, 0), (0, 9), (1,), (1, 0, 0), "1.0", 1, None, ("1", 0)])
def test_a_record_with_an_unknown_major_version_is_refused(version: object) -> None:
    with pytest.raises(UnknownVersion, match="upgrade this consumer"):
        decode(Frame, fields(FRAME, v=version))


def test_a_record_with_a_newer_minor_version_and_new_fields_is_read() -> None:
    assert decode(Frame, fields(FRAME, v=(1, 7), exposure_us=250)) == FRAME


def test_an_end_record_encodes_its_field_reported_under_the_old_name_told() -> None:
    data = encode(EpochEnd(camera="gate", epoch=4, last=1, clean=False, reported=3))
    assert msgpack.unpackb(data)["told"] == 3
    assert decode(EpochEnd, data).reported == 3


def test_an_unknown_withheld_reason_of_a_newer_minor_version_is_kept() -> None:
    account = {**ACCOUNT.model_dump(), "counts": {"still": 3, "too-dark": 4}}
    found = decode(Frame, fields(FRAME, v=(1, 7), account=account)).account
    assert found
    assert found.counts == {"still": 3, "too-dark": 4}


@pytest.mark.parametrize("kind", ["result", "Frame", 7, None, ["frame"]])
def test_a_record_of_an_unexpected_kind_is_refused(kind: object) -> None:
    with pytest.raises(WrongKind, match="expected a frame record"):
        decode(Frame, fields(FRAME, kind=kind))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"seq": -1}, "seq"),
        ({"seq": "7"}, "seq"),
        ({"seq": 7.0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": None}, "seq: Field required"),
        ({"camera": "Gate 1"}, "camera"),
        ({"camera": "gate\n"}, "camera"),
        ({"camera": ""}, "camera"),
        ({"image": "text"}, "image"),
        ({"encoding": "gif"}, "encoding"),
        ({"motion": [[1.0, 2.0, 3.0]]}, "motion"),
        (
            {"account": {"camera": "gate", "epoch": 5, "first": 0, "last": 6, "counts": {"still": 6}}},
            "do not sum to 7",
        ),
        ({"account": {"camera": "gate", "epoch": 5, "first": 3, "last": 2, "counts": {}}}, "is empty"),
        ({"account": {"camera": "gate", "epoch": 5, "first": 0, "last": 0, "counts": {"a": 2, "b": -1}}}, "counts"),
        (
            {"account": {**ACCOUNT.model_dump(), "counts": {"still": 7, **{f"r{n}": 0 for n in range(16)}}}},
            "at most 16",
        ),
        ({"account": {**ACCOUNT.model_dump(), "counts": {"still": 3, "a" * 33: 4}}}, "counts"),
        ({"account": {**ACCOUNT.model_dump(), "counts": {"still": 3, "a b=1": 4}}}, "counts"),
        (
            {"account": {"camera": "gate", "epoch": 5, "first": 0, "last": 5, "counts": {"still": 6}}},
            "ends just before",
        ),
        (
            {"account": {"camera": "yard", "epoch": 5, "first": 0, "last": 6, "counts": {"still": 7}}},
            "ends just before",
        ),
        (
            {"account": {"camera": "gate", "epoch": 4, "first": 0, "last": 6, "counts": {"still": 7}}},
            "ends just before",
        ),
    ],
)
def test_a_frame_with_an_invalid_field_is_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(WrongType, match=problem):
        decode(Frame, fields(FRAME, **changed))


@pytest.mark.parametrize(
    ("record", "changed", "problem"),
    [
        (BATCH, {"pixels": bytes(5)}, "5 bytes of pixels: expected 6"),
        (BATCH, {"height": 0}, "lies outside"),
        (BATCH, {"items": []}, "expected 0 for its 0 regions"),
        (READINGS, {"values": [1.0]}, "the columns of readings have lengths"),
        (READINGS, {"values": [], "times_ns": [], "quality": []}, "expected equal lengths above 0"),
        (RESULT, {"outcome": "dead"}, "outcome"),
        (BEAT, {"state": "tired"}, "state"),
    ],
)
def test_records_with_contradicting_fields_are_refused(record: Record, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(WrongType, match=problem):
        decode(type(record), fields(record, **changed))


def test_only_a_batch_item_that_needs_classification_may_have_regions() -> None:
    with pytest.raises(ValueError, match="1 regions and outcome empty: expected regions only with"):
        BatchItem(**{**ITEM.model_dump(), "outcome": "empty"})
    with pytest.raises(ValueError, match="0 regions and outcome classify: expected regions only"):
        BatchItem(**{**ITEM.model_dump(), "regions": ()})


def test_a_msgpack_record_that_is_no_map_is_refused() -> None:
    with pytest.raises(WrongType, match="expected a map of fields, found tuple"):
        decode(Frame, msgpack.packb([1, 2]))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"id": "x"'])
def test_a_malformed_json_record_is_refused_as_truncated(data: bytes) -> None:
    with pytest.raises(Truncated, match="malformed JSON"):
        decode_json(Event, data)


def test_a_json_record_with_a_missing_field_is_refused() -> None:
    with pytest.raises(WrongType, match="data: Field required"):
        decode_json(Event, b'{"id": "x", "source": "s", "type": "t", "subject": "s", "time": "t"}')


@pytest.mark.parametrize("changed", [{"seq": 2**64}, {"site": "\ud800"}])
def test_a_value_that_msgpack_cannot_represent_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(WrongType, match="msgpack cannot represent the record"):
        encode(FRAME.model_copy(update=changed))


def test_a_codec_error_has_a_reason_for_metrics() -> None:
    with pytest.raises(CodecError) as raised:
        decode(Frame, b"")
    assert raised.value.reason == "truncated"


# Decoding raises nothing but CodecError, for any bytes.


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


def test_the_largest_allowed_batch_is_decoded() -> None:
    region = Region(Box(0.0, 0.0, 9.0, 9.0), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, 1, 1))
    boxes = (region.box,) * 128  # the largest batch that the prepare stage writes
    fields = {"regions": (region,) * 64, "outcome": "classify", "motion": boxes, "resting": boxes}
    item = ITEM.model_copy(update=fields)
    batch = Batch(pipeline="p", height=1, width=1, channels=3, items=(item,) * 64, pixels=bytes(3 * 64 * 64))
    assert decode(Batch, encode(batch)) == batch


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


def test_records_written_before_second_stage_models_existed_are_read_without_frames_and_attributes() -> None:
    batch, result = (msgpack.unpackb(encode(one)) for one in (BATCH, RESULT))
    batch["v"] = result["v"] = (1, 2)
    del batch["frames"], batch["items"][0]["attached"], result["detections"][0]["attributes"]
    old_batch, old_result = decode(Batch, msgpack.packb(batch)), decode(Result, msgpack.packb(result))
    assert old_batch == BATCH
    assert old_batch.attached_frames() == [b""]
    assert old_result == RESULT
    assert old_result.detections[0].attributes == ()


def test_items_of_a_batch_older_than_version_1_4_are_read_as_cropped() -> None:
    batch = msgpack.unpackb(encode(BATCH))
    batch["v"] = (1, 3)
    del batch["items"][0]["cropped"]
    assert decode(Batch, msgpack.packb(batch)) == BATCH


def test_an_item_that_is_not_cropped_needs_its_encoded_frame() -> None:
    item = ITEM.model_copy(update={"cropped": False})
    with pytest.raises(WrongType, match="expected an encoded frame"):
        decode(Batch, encode(BATCH.model_copy(update={"items": (item,), "pixels": b""})))


def test_json_for_people_has_the_size_of_an_embedding_and_not_its_values() -> None:
    text = encode_json(RESULT).decode()
    assert '"embeddings":[{"name":"look","model":"appearance@1","dimensions":256}]' in text
    assert "values" not in text


def test_a_result_of_an_older_engine_node_has_no_embeddings() -> None:
    fields = msgpack.unpackb(encode(RESULT))
    fields["v"] = [1, 4]
    del fields["detections"][0]["embeddings"]
    assert decode(Result, msgpack.packb(fields)).detections[0].embeddings == ()


@pytest.mark.parametrize("size", [0, MAX_EMBEDDING + 1])
def test_an_embedding_without_numbers_or_with_too_many_is_refused(size: int) -> None:
    fields = msgpack.unpackb(encode(RESULT))
    fields["detections"][0]["embeddings"][0]["values"] = bytes(size)
    with pytest.raises(WrongType, match="embeddings"):
        decode(Result, msgpack.packb(fields))
