"""Tests of the ledger by camera and hour, and of the explanation of a frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest

from console.context import ConsoleContext
from console.ledger.compute import explanation, ledger_report
from console.ledger.reading import FRESH_S, MAX_EXPLAINING, ReportReader
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.records import WithheldInterval
from ingest.contract.topics import FRAMES, partition_for
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.exceptions import FrameNotFound
from tests.console.conftest import Browser
from tests.console.records import configure, frame, result, write

Open = Callable[..., Browser]
BEGIN = "2023-11-14 22:00:00 UTC"


@pytest.fixture(autouse=True)
async def computed(context: ConsoleContext, log: MemoryLog) -> AsyncIterator[None]:
    """Compute the ledger of frames of gate, of which one has no result, and of yard. No broker answers later."""
    context.ledger._env["SIGHTLINE_KAFKA"] = "127.0.0.1:9"
    await configure(log)
    before = WithheldInterval(camera="gate", epoch=1, first=0, last=3, counts={"still": 4})
    first = frame("gate", 4).model_copy(update={"account": before})
    partition, headers = partition_for("gate", len(await log.ends(FRAMES))), {h.FRAMES: b"gate/1/4"}
    await log.produce(Outgoing(FRAMES, partition, encode(first), headers=headers))
    await write(log, frame("gate", 5), result("gate", 4), frame("yard", 0), result("yard", 0))
    await context.feed.catch_up(log)
    found = ReportReader()
    report = await ledger_report(log, lambda *_: None, wait_s=0.0)
    found.take(json.dumps({"report": report}).encode())
    context.ledger.take(found)
    yield
    await context.ledger.close()


async def test_the_ledger_page_has_the_frames_of_each_camera_and_hour_with_links_to_faulty_frames(
    browser: Open,
) -> None:
    one = browser()
    await one.sign_in("ada")
    html = await one.load("/ledger?hours=0")
    assert html.count(BEGIN) == 2
    assert html.count("not balanced") == 2  # gate, and the sum of both
    assert "still 4" in html
    assert 'href="/explain?frame=gate/1/5"' in html
    body = (await one.get("/api/ledger?hours=0")).json()
    gate, yard = body["lines"]
    assert (gate["camera"], gate["captured"], gate["withheld"], gate["delivered"]) == ("gate", 6, {"still": 4}, 2)
    assert (gate["classified"], gate["unaccounted"], gate["balanced"]) == (1, 1, False)
    assert (yard["camera"], yard["captured"], yard["balanced"]) == ("yard", 1, True)
    assert [line["camera"] for line in (await one.get("/api/ledger?hours=0&camera=yard")).json()["lines"]] == ["yard"]


async def test_a_user_sees_the_ledger_of_only_the_visible_cameras(browser: Open) -> None:
    for name in ("otto", "vera"):
        one = browser()
        await one.sign_in(name)
        html = await one.load("/ledger?hours=0")
        assert "yard" not in html
        assert [line["camera"] for line in (await one.get("/api/ledger?hours=0")).json()["lines"]] == ["gate"]
        assert (await one.get("/explain?frame=yard/1/0")).status_code == 404


async def test_the_ledger_page_still_shows_the_previous_ledger_if_a_new_computation_fails(
    browser: Open, context: ConsoleContext, clock: ManualClock
) -> None:
    one = browser()
    await one.sign_in("vera")
    await one.load("/ledger")
    assert not context.ledger.running
    clock.advance(FRESH_S + 1.0)
    assert "is being computed" in await one.load("/ledger?hours=0")
    assert context.ledger._task is not None
    await context.ledger._task
    html = await one.load("/ledger?hours=0")
    assert "could not be computed" in html
    assert BEGIN in html
    assert (await one.submit("/ledger")).status_code == 303
    assert context.ledger.running


async def test_the_ledger_page_reports_a_ledger_too_long_to_read_and_does_not_immediately_compute_it_again(
    browser: Open, context: ConsoleContext, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.child._LINE_BYTES", 1)
    monkeypatch.setattr("console.ledger.reading.MODULE", "json.tool")  # prints the request
    one = browser()
    await one.sign_in("vera")
    clock.advance(FRESH_S + 1.0)
    await one.load("/ledger")
    assert context.ledger._task is not None
    await context.ledger._task
    assert "printed a line that cannot be read" in await one.load("/ledger")
    assert not context.ledger.running


async def test_the_console_explains_the_processing_steps_of_a_frame(log: MemoryLog) -> None:
    found = await explanation(log, "gate/1/4")
    assert found["lines"][0] == "frame gate/1/4 (live)"
    assert any("withheld before this frame: 0 to 3 (still 4)" in line for line in found["lines"])
    with pytest.raises(FrameNotFound):
        await explanation(log, "nowhere/1/4")


async def test_an_explanation_that_cannot_be_computed_says_why(browser: Open, context: ConsoleContext) -> None:
    one = browser()
    await one.sign_in("ada")
    refused = await one.get("/explain?frame=gate")
    assert (refused.status_code, "expected camera/epoch/seq" in refused.text) == (422, True)
    context.ledger._explaining = MAX_EXPLAINING
    assert (await one.get("/explain?frame=gate/1/5")).status_code == 429
