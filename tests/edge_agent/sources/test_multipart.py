"""Tests of the multipart parser, for any split of the stream by the network."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.multipart import Multipart, boundary_of

BODIES = [b"\xff\xd8first\xff\xd9", b"\xff\xd8\r\n\r\n--no\xff\xd9", b"\xff\xd8third\xff\xd9"]


def stream(*, lengths: bool, newline: bytes = b"\r\n") -> bytes:
    parts = b"some words before\r\n"
    for body in BODIES:
        length = b"Content-Length: %d" % len(body) + newline if lengths else b""
        parts += b"--frame" + newline + b"Content-Type: image/jpeg" + newline + length + newline + body + newline
    return parts + b"--frame--"


@given(cuts=st.lists(st.integers(0, 300), max_size=12), lengths=st.booleans(), bare=st.booleans(), told=st.booleans())
def test_multipart_parts_are_complete_however_the_network_splits_the_stream(
    cuts: list[int], lengths: bool, bare: bool, told: bool
) -> None:
    data = stream(lengths=lengths, newline=b"\n" if bare else b"\r\n")
    parts, found = Multipart(b"frame" if told else b"", 1000), []
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
    with pytest.raises(ValueError, match="2000 bytes exceeds the limit of 1000"):
        Multipart(b"frame", 1000).feed(b"--frame\r\nContent-Length: 2000\r\n\r\n")


def test_a_multipart_stream_without_a_complete_part_is_refused_above_the_size_limit() -> None:
    parts = Multipart(b"frame", 1000)
    with pytest.raises(ValueError, match="no complete part within 1000 bytes"):
        parts.feed(b"x" * 20_000)
