"""Tests of the search by the colour of an object and by a sketched path."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from console.context import ConsoleContext
from console.review.path import is_near, path_distance
from ingest.contract.records import Alert, Box, Overlay
from ingest.kafka.memorylog import MemoryLog
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, write

Open = Callable[..., Browser]
ROAD = [(float(x), 100.0) for x in range(0, 640, 10)]
TURN = [*((float(x), 100.0) for x in range(0, 300, 10)), *((300.0, float(y)) for y in range(100, 350, 10))]


def coloured(found: Alert, *colours: str) -> Alert:
    return found.model_copy(update={"data": found.data.model_copy(update={"colours": colours})})


@pytest.fixture
async def one(browser: Open, context: ConsoleContext, log: MemoryLog) -> Browser:
    """Return ada's browser. event-1 follows the road, event-2 in the other direction, event-3 turns, event-4 has no
    trail. event-1 is of a red object, event-3 of a blue and white one."""
    await configure(log)
    trails = {1: ROAD, 2: ROAD[::-1], 3: TURN, 4: []}
    events = {
        number: event(number, overlay=Overlay(box=Box(1, 2, 3, 4), trail=tuple(one)))
        for number, one in trails.items()
    }
    alerts = coloured(alert(events[1]), "red"), coloured(alert(events[3]), "blue", "white")
    await write(log, *events.values(), *alerts)
    await context.feed.catch_up(log)
    found = browser()
    await found.sign_in("ada")
    return found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("colour=red", [1]),
        ("colour=white", [3]),
        ("colour=green", []),
        ("path=50,110;400,90&near=20", [1]),
        ("path=400,90;50,110&near=20", [2]),
        ("path=50,100;290,110;310,300&near=20", [3]),
        ("path=50,110;200,110&near=20", [3, 1]),
        ("path=50,110;200,110&near=5", []),
        ("path=50,110;200,110&near=20&colour=red", [1]),
    ],
)
async def test_events_are_found_by_the_colour_and_the_path_of_their_object(
    one: Browser, query: str, expected: list[int]
) -> None:
    items = (await one.get(f"/api/events?camera=gate&{query}")).json()["items"]
    assert [item["event"]["id"] for item in items] == [f"event-{number}" for number in expected]
    html = await one.load(f"/events?camera=gate&{query}")
    assert [number for number in (4, 3, 2, 1) if f"summary {number}" in html] == expected


@pytest.mark.parametrize(
    "path", ["1,1", "1;2", "a,b;c,d", "1,1;nan,2", "1,1;inf,2", "1,1;2,2,2", ";".join(["1,1"] * 101)]
)
async def test_a_sketched_path_that_cannot_be_read_is_refused(one: Browser, path: str) -> None:
    response = await one.get("/api/events", params={"path": path})
    assert (response.status_code, "expected 2 to 100 points" in response.text) == (422, True)


async def test_the_page_of_events_shows_a_picture_of_the_chosen_camera_to_sketch_on(one: Browser) -> None:
    assert 'src="/events/event-4/picture?plain=true"' in await one.load("/events?camera=gate")
    assert "sketch" not in (await one.load("/events")).partition("<main")[2]


def test_the_distance_from_a_sketched_path_to_a_trail_depends_on_direction_but_not_on_point_count() -> None:
    assert path_distance(ROAD[5:20], ROAD) < 3.0
    assert path_distance([(50.0, 130.0), (200.0, 130.0)], ROAD) == pytest.approx(30.0, abs=1.0)
    assert path_distance([(200.0, 100.0), (50.0, 100.0)], ROAD) > 70.0
    assert path_distance(ROAD, [*ROAD[::20], ROAD[-1]]) < 6.0
    assert path_distance(ROAD, []) == math.inf
    assert path_distance([(5.0, 5.0), (5.0, 5.0)], [(5.0, 5.0)]) == 0.0


def test_a_trail_that_misses_an_end_of_the_sketched_path_does_not_match() -> None:
    assert is_near(ROAD[:30], ROAD, 5.0)
    assert not is_near(ROAD, ROAD[:30], 50.0)
    assert not is_near(ROAD, [], 1e9)
