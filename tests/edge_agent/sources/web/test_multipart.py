"""Tests of the multipart parser, for any split of the stream by the network."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.web.multipart import Multipart, boundary_of

BODIES = [b"\xff\xd8first\xff\xd9", b"\xff\xd8\r\n\r\n--no\xff\xd9", b"\xff\xd8third\xff\xd9"]


def stream(*, lengths: bool, newline: bytes = b"\r\n") -> bytes:
    parts = b"some words before\r\n"
    for body in BODIES:
        length = b"Content-Length: %d" % len(body) + newline if lengths else b""
        parts += b"--frame" + newline + b"Content-Type: image/jpeg" + newline + length + newline + body + newline
    return parts + b"--frame--"


@given(
    cuts=st.lists(st.integers(0, 300), max_size=12), lengths=st.booleans(), bare=st.booleans(), declared=st.booleans()
)
def test_multipart_parts_are_complete_however_the_network_splits_the_stream(
    cuts: list[int], lengths: bool, bare: bool, declared: bool
) -> None:
    data = stream(lengths=lengths, newline=b"\n" if bare else b"\r\n")
    parts, found = Multipart(b"frame" if declared else b"", 1000), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        found += parts.feed(data[start:end])
    assert [body.rstrip() for body in found] == BODIES


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"frame"),
        ('multipart/x-mixed-replace;boundary="--frame"', b"frame"),
        ("multipart/x-mixed-replace; Boundary = --frame; charset=x", b"frame"),
        ("image/jpeg", b""),
    ],
)
def test_the_multipart_boundary_is_found_in_any_notation_of_the_content_type(
    content_type: str, boundary: bytes
) -> None:
    assert boundary_of(content_type) == boundary


def test_a_multipart_part_with_an_oversized_content_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2000 bytes: expected at most 1000"):
        Multipart(b"frame", 1000).feed(b"--frame\r\nContent-Length: 2000\r\n\r\nabc")


def test_a_multipart_stream_without_a_complete_part_is_refused_above_the_size_limit() -> None:
    parts = Multipart(b"frame", 1000)
    with pytest.raises(ValueError, match="expected at most 16384"):
        parts.feed(b"x" * 20_000)


PICTURES = [cv2.imencode(".jpg", np.full((16, 16, 3), level, np.uint8))[1].tobytes() for level in (30, 90, 200)]
LENGTHS = {"none": "", "right": "{right}", "zero": "0", "short": "20", "long": "99999", "junk": "-1"}


def parts(pictures: list[bytes], boundary: str, length: str, after: bytes = b"\r\n") -> list[bytes]:
    """Return the bytes of each part: boundary, headers, picture, and the bytes ``after`` the picture."""
    found = []
    for picture in pictures:
        value = LENGTHS[length].format(right=len(picture))
        header = f"Content-Length: {value}\r\n" if value else ""
        found.append(f"{boundary}\r\nContent-Type: image/jpeg\r\n{header}\r\n".encode() + picture + after)
    return found


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    ("named", "boundary"),
    [(b"frame", "--frame"), (b"frame", "--other"), (b"frame", "frame"), (b"", "--ipcamera--x")],
)
def test_a_jpeg_is_complete_at_its_end_marker_despite_a_wrong_boundary_or_length(
    named: bytes, boundary: str, length: str
) -> None:
    parser = Multipart(named, 100_000)
    for sent, picture in zip(parts(PICTURES, boundary, length, b""), PICTURES, strict=True):
        assert parser.feed(sent[:-1]) == []
        assert parser.feed(sent[-1:]) == [picture]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_jpegs_in_a_multipart_stream_are_found_for_any_size_of_the_received_pieces(length: str, size: int) -> None:
    data, parser = b"".join(parts(PICTURES, "--x", length)), Multipart(b"frame", 100_000)
    found = [body for at in range(0, len(data), size) for body in parser.feed(data[at : at + size])]
    assert found == PICTURES


def test_a_second_picture_and_other_bytes_after_a_jpeg_are_skipped() -> None:
    data = b"".join(parts(PICTURES, "--x", "none", PICTURES[0] + bytes(5000) + b"\r\n"))
    assert Multipart(b"x", 100_000).feed(data) == PICTURES


def test_the_jpeg_after_a_truncated_jpeg_is_found() -> None:
    first, second, third = parts(PICTURES, "--frame", "right")
    found = Multipart(b"frame", 100_000).feed(first + second[:-40] + b"\r\n" + third)
    assert [found[0], found[2]] == [PICTURES[0], PICTURES[2]]
    assert PICTURES[1].startswith(found[1])


def test_jpegs_in_a_stream_without_boundaries_or_without_an_empty_line_are_found() -> None:
    assert Multipart(b"", 100_000).feed(b"\r\n".join(PICTURES)) == PICTURES
    data = b"".join(b"--x\r\nContent-Type: image/jpeg\r\n" + picture + b"\r\n" for picture in PICTURES)
    assert Multipart(b"x", 100_000).feed(data) == PICTURES


def test_a_png_part_with_a_too_large_length_ends_before_the_next_part() -> None:
    data = b"--x\r\nContent-Length: 9000\r\n\r\n\x89PNG one\r\n--x\r\nContent-Length: 8\r\n\r\n\x89PNG two"
    assert Multipart(b"x", 100_000).feed(data) == [b"\x89PNG one", b"\x89PNG two"]
