"""Tests of batches that are encoded from parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.codec import HEAD_BYTES, decode, encode, encode_batch, encode_part, has_pictures
from ingest.contract.records import (
    Batch,
    BatchItem,
    Box,
    Canvas,
    EncodedFrame,
    Fit,
    FrameRef,
    Inner,
    Preparation,
    Region,
)
from ingest.exceptions import CodecError, Oversize, WrongType

SIDE = 200
SIDES = st.sampled_from([1, 9, 16, 148, SIDE])  # around the lengths at which msgpack's header grows


def item(sides: list[int], **values: object) -> BatchItem:
    regions = tuple(Region(Box(0.0, 0.0, 9.0, 9.0), Fit(1.0, 0.3, 0.0, 4.5), Inner(0, 0, s, s)) for s in sides)
    fields = {
        "camera": "gate",
        "epoch": 5,
        "seq": 2**63 - 1,
        "lane": "live",
        "captured_ns": 1,
        "width": 640,
        "height": 360,
        "source": FrameRef("frames", 0, 17),
        "pipelines": ("cars", "people"),
        "outcome": "classify" if sides else "empty",
        "regions": regions,
        "withheld": {"still": 2},
    }
    return BatchItem(**{**fields, **values})


@given(
    st.lists(st.tuples(st.lists(SIDES, max_size=2), st.binary(max_size=300)), max_size=20),
    st.from_regex(r"[a-z]{1,63}", fullmatch=True),
)
def test_a_batch_encoded_from_parts_equals_the_batch_encoded_as_a_whole(
    parts_of: list[tuple[list[int], bytes]], name: str
) -> None:
    attached = [frame if sides else b"" for sides, frame in parts_of]
    items = tuple(
        item(sides, attached=EncodedFrame("jpeg", len(frame)) if frame else None)
        for (sides, _), frame in zip(parts_of, attached, strict=True)
    )
    pictures = [np.full((s, s, 3), s, np.uint8) for sides, _ in parts_of for s in sides]
    whole = Batch(
        pipeline=name,
        height=SIDE,
        width=SIDE,
        channels=3,
        colour="rgb",
        fit="crop",
        items=items,
        pixels=b"".join(p.tobytes() for p in pictures),
        frames=b"".join(attached),
    )
    parts = [encode_part(each) for each in items]
    preparation = Preparation(Canvas(SIDE, SIDE, 3), "rgb", "crop")
    found = encode_batch(name, preparation, parts, pictures, attached)
    assert found == encode(whole)
    assert len(found) <= HEAD_BYTES + sum(map(len, parts)) + len(whole.pixels) + len(whole.frames)
    assert decode(Batch, found).attached_frames() == attached
    assert has_pictures(found) == bool(whole.pixels or whole.frames)


def test_an_oversize_or_unencodable_batch_item_is_refused_without_its_batch() -> None:
    with pytest.raises(Oversize):
        encode_part(item([], motion=(Box(0.0, 0.0, 9.0, 9.0),) * 100), max_bytes=1000)
    with pytest.raises(WrongType):
        encode_part(item([]).model_copy(update={"seq": 2**64}))


def test_a_batch_whose_frames_are_shorter_than_its_items_declare_is_refused() -> None:
    picture = np.zeros((9, 9, 3), np.uint8)
    one = encode_part(item([9], attached=EncodedFrame("jpeg", 10)))
    with pytest.raises(CodecError, match="9 bytes of frames: expected 10"):
        decode(Batch, encode_batch("cars", Preparation(Canvas(SIDE, SIDE, 3)), [one], [picture], [bytes(9)]))
