"""Tests of the line parser, and of values, times and paths as devices write them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sensors.source import Reading
from edge_agent.sensors.sources.lines import MAX_LINE_BYTES, LineParser, NamedReading
from edge_agent.sensors.values import (
    MAX_AHEAD_S,
    MAX_BEHIND_S,
    UNREADABLE_NS,
    at_path,
    number,
    parse_json,
    parse_reading,
    parse_time,
    reading_time,
)
from ingest.contract.records import BY_HOST, BY_HOST_INSTEAD, BY_SOURCE, GOOD, SUSPECT

S_NS = 10**9
NOW_NS = 1_700_000_000 * S_NS

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,10}", fullmatch=True).filter(
    lambda n: n not in ("name", "value", "time", "timestamp", "quality")
)


def read(data: bytes, form: str = "lines", header: str = "") -> list[NamedReading]:
    lines = LineParser("csv" if form == "csv" else "lines", header)
    return [*lines.feed(data), *lines.end()]


def values(found: Sequence[NamedReading]) -> list[tuple[str, float | None]]:
    return [(name, reading.value) for name, reading in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("door 1", [("door", 1.0)]),
        ("23.5", [("", 23.5)]),
        ("temp\t-4.5e1\r", [("temp", -45.0)]),
        ('{"name": "temp", "value": 3}', [("temp", 3.0)]),
        ('{"value": 3}', [("", 3.0)]),
        ('{"a": 1, "b": true, "time": 17}', [("a", 1.0), ("b", 1.0)]),
        ("temp nan", [("temp", None)]),
        ("temp 1_000", [("temp", None)]),
        ('{"a": NaN}', [("a", None)]),
        ('{"a": 1e999}', [("a", None)]),
        ('{"a": {"b": 1}}', [("a", None)]),
        ('{"a": 1', [("", None)]),
        ("[1, 2]", [("", None)]),
        ("{}", [("", None)]),
        ("who is this", [("who", None)]),
        ("   ", []),
        ("\0 \0", []),
        ("\0 \0 \0", [("", None)]),
        ("temp 1\x1c", [("temp", 1.0)]),
        ("\x1d1\x1e", [("", 1.0)]),
        ('{"a": "1\\u001f"}', [("a", 1.0)]),
    ],
)
def test_a_line_of_words_or_json_from_a_device_is_parsed_into_named_readings(
    line: str, expected: list[tuple[str, float | None]]
) -> None:
    assert values(read(line.encode() + b"\n")) == expected


def test_the_error_of_an_unreadable_reading_quotes_the_text_of_the_reading() -> None:
    ((_, found),) = read(b"temp warm\n")
    assert found == Reading(None, problem="no finite number: 'warm'")


def test_a_text_line_with_a_reading_may_also_have_a_time_and_a_quality() -> None:
    (words,) = read(b"temp 1 2023-11-14T22:13:20.5Z\n")
    assert words.reading == Reading(1.0, NOW_NS + S_NS // 2)
    (json_line,) = read(b'{"name": "temp", "value": 1, "time": 1700000000, "quality": "Bad"}\n')
    assert json_line.reading == Reading(1.0, NOW_NS, SUSPECT)
    assert parse_reading(1, quality="Good").quality == parse_reading(1, quality="0").quality == GOOD


def test_a_device_may_repeat_its_csv_header() -> None:
    found = read(b"time,a,b\n1700000000,1,2\n\n1700000001,3,x\ntime,a,b\n1700000002,4\n1700000003,5,6\n", "csv")
    assert values(found) == [
        *(("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", None), ("a", None), ("b", None), ("a", 5.0), ("b", 6.0))
    ]
    assert [each.reading.at_ns for each in found[:2]] == [NOW_NS, NOW_NS]
    assert values(read(b'1;"2,5"\n3;4\n', "csv", header="a;b")) == [("a", 1.0), ("b", None), ("a", 3.0), ("b", 4.0)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"Hall, north";"a ""b"""\n1;2\n', [("Hall, north", 1.0), ('a "b"', 2.0)]),
        (b'"a;x","b"\n1,2\n', [("a;x", 1.0), ("b", 2.0)]),
        (b'"time", "a", "b"\n"2023-11-14T22:13:20Z", "1", "2"\n', [("a", 1.0), ("b", 2.0)]),
        (b'a,note,b\n1,"warm, dry",2\n', [("a", 1.0), ("note", None), ("b", 2.0)]),
        (b"a,b\r1,2\r3,4\r", [("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 4.0)]),
        (b"a,b\r\n1,2\r\n\r\n3,4\r\n", [("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 4.0)]),
        (b'\xef\xbb\xbf"a",b\r\n1,2\r\n', [("a", 1.0), ("b", 2.0)]),
    ],
)
def test_csv_readings_with_quotes_and_any_line_ends_are_parsed(
    data: bytes, expected: list[tuple[str, float | None]]
) -> None:
    assert values(read(data, "csv")) == expected
    bytewise = LineParser("csv")
    assert values([named for at in range(len(data)) for named in bytewise.feed(data[at : at + 1])]) == expected


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b'1,"2', "not CSV: unexpected end of data: '1,\"2'"),
        (b'1,"2"3', "not CSV: ',' expected after '\"': '1,\"2\"3'"),
        (b"1,2,3", "3 cells for 2 columns: '1,2,3'"),
    ],
)
def test_an_unreadable_csv_row_makes_the_readings_of_all_its_columns_unreadable(row: bytes, problem: str) -> None:
    found = read(b"time,a\n" + row + b"\n1700000000,5\n", "csv")
    assert [(name, reading.problem) for name, reading in found[:1]] == [("a", problem)]
    assert values(found) == [("a", None), ("a", 5.0)]


def test_an_unreadable_csv_header_is_reported_and_the_next_line_is_tried_as_header() -> None:
    found = read(b'"a,b\na,b\n1,2\n', "csv")
    assert values(found) == [("", None), ("a", 1.0), ("b", 2.0)]
    assert "not CSV" in found[0].reading.problem


@given(st.binary(max_size=2000), st.sampled_from(["lines", "csv"]))
def test_the_line_parser_accepts_any_bytes_without_an_error(data: bytes, form: str) -> None:
    for _, found in read(data, form):
        assert found.value is None or math.isfinite(found.value)
        assert (found.value is None) == bool(found.problem)


@given(st.text(max_size=300))
def test_the_parsers_of_text_lines_json_paths_and_times_accept_any_text_without_an_error(text: str) -> None:
    for shape in ("{}\n", '{{"a": {}}}\n', "a {}\n", "a 1 {}\n"):
        read(shape.format(text).encode(errors="replace"))
    at_path(parse_json(text), text)
    assert parse_time(text) is None or text


@given(
    st.lists(
        st.one_of(st.tuples(NAMES, FINITE), st.binary(max_size=30).map(lambda b: b.replace(b"\n", b""))), max_size=30
    ),
    st.integers(1, 40),
)
def test_all_valid_lines_among_garbage_are_read_with_any_chunk_size(
    parts: list[tuple[str, float] | bytes], chunk: int
) -> None:
    data = b"".join(
        (part if isinstance(part, bytes) else f"good.{part[0]} {part[1]!r}".encode()) + b"\n" for part in parts
    )
    lines = LineParser()
    found = [named for at in range(0, len(data), chunk) for named in lines.feed(data[at : at + chunk])]
    good = [(f"good.{part[0]}", part[1]) for part in parts if not isinstance(part, bytes)]
    assert [each for each in values(found) if each[0].startswith("good.")] == good
    assert found == read(data)


@given(st.dictionaries(NAMES, FINITE, min_size=1, max_size=8))
def test_every_number_of_a_flat_json_object_is_read_under_its_name(numbers: dict[str, float]) -> None:
    assert dict(values(read(json.dumps(numbers).encode() + b"\n"))) == numbers


def test_noise_without_line_ends_becomes_one_unreadable_line_in_limited_memory() -> None:
    lines = LineParser()
    for _ in range(10):
        assert not list(lines.feed(b"\x07" * MAX_LINE_BYTES))
        assert len(lines._rest) <= MAX_LINE_BYTES
    found = list(lines.feed(b"\x07\ntemp 1\n"))
    assert values(found) == [("", None), ("temp", 1.0)]
    deep = b"[" * (MAX_LINE_BYTES - 1) + b"\n"
    assert values(list(lines.feed(deep))) == [("", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        (1_700_000_000, NOW_NS),
        (1_700_000_000.25, NOW_NS + S_NS // 4),
        ("1700000000250", NOW_NS + S_NS // 4),
        (1_700_000_000_000_001, NOW_NS + 1000),
        (1_700_000_000_000_000_001, NOW_NS + 1),
        ("2023-11-14T22:13:20+00:00", NOW_NS),
        ("2023-11-14 22:13:20", NOW_NS),
        ("2023-11-14T23:13:20+01:00", NOW_NS),
        ("yesterday", UNREADABLE_NS),
        (True, UNREADABLE_NS),
        ([1], UNREADABLE_NS),
        ("nan", UNREADABLE_NS),
        (10**400, UNREADABLE_NS),
        ("9" * 5000, UNREADABLE_NS),
    ],
)
def test_a_device_time_may_be_iso_8601_or_unix_time_in_any_unit(text: object, expected: int | None) -> None:
    assert parse_time(text) == expected


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_every_iso_8601_time_of_a_reading_is_converted_exactly(moment: datetime, zone: timezone) -> None:
    zoned = moment.replace(tzinfo=zone)
    since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_time(zoned.isoformat()) == since // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize(
    ("own_s", "expected"),
    [
        (None, (0.0, BY_HOST)),
        (-60.0, (-60.0, BY_SOURCE)),
        (MAX_AHEAD_S, (MAX_AHEAD_S, BY_SOURCE)),
        (MAX_AHEAD_S + 0.1, (0.0, BY_HOST_INSTEAD)),
        (-MAX_BEHIND_S - 0.1, (0.0, BY_HOST_INSTEAD)),
    ],
)
def test_a_device_time_is_used_only_if_it_is_plausible(own_s: float | None, expected: tuple[float, int]) -> None:
    at_ns, by = reading_time(None if own_s is None else NOW_NS + round(own_s * S_NS), NOW_NS)
    assert ((at_ns - NOW_NS) / S_NS, by) == expected
    assert reading_time(UNREADABLE_NS, NOW_NS) == (NOW_NS, BY_HOST_INSTEAD)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", None), ("a", None), ("a.b", 1), ("c.1", 7), ("c.2", None), ("c.x", None), ("d.e", 5), ("a.b.c", None)],
)
def test_a_dotted_path_selects_an_element_of_a_json_reading(path: str, expected: object) -> None:
    found = at_path({"a": {"b": 1}, "c": [6, 7], "d.e": 5}, path)
    assert number(found) == (None if expected is None else float(str(expected)))
