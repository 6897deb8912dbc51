"""Tests of encoding and decoding, and of the records that are refused."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from ingest.contract.codec import MAX_RECORD_BYTES, decode, decode_json, encode, encode_json
from ingest.contract.records import (
    MAX_EMBEDDING,
    Batch,
    BatchItem,
    Box,
    EpochEnd,
    Event,
    Fit,
    Frame,
    Inner,
    Record,
    Region,
    Result,
)
from ingest.exceptions import CodecError, Oversize, Truncated, UnknownVersion, WrongKind, WrongType
from tests.ingest.contract.records import (
    ACCOUNT,
    BATCH,
    BEAT,
    EVENT,
    FRAME,
    ITEM,
    JSON,
    MSGPACK,
    READINGS,
    RESULT,
    fields,
)
from tests.modelinput import model_input


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


def test_the_largest_allowed_batch_is_decoded() -> None:
    region = Region(Box(0.0, 0.0, 9.0, 9.0), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, 1, 1))
    boxes = (region.box,) * 128  # the largest batch that the prepare stage writes
    fields = {"regions": (region,) * 64, "outcome": "classify", "motion": boxes, "resting": boxes}
    item = ITEM.model_copy(update=fields)
    batch = Batch(pipeline="p", height=1, width=1, channels=3, items=(item,) * 64, pixels=bytes(3 * 64 * 64))
    assert decode(Batch, encode(batch)) == batch


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
