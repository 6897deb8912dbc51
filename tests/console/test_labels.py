"""Tests of the page Labels and its API: the queue, decisions, rights, and the audit trail."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from console.context import ConsoleContext
from console.live.labelling import IDLE_S, LEASE_S
from ingest.contract.codec import encode
from ingest.contract.records import ShadowDifference, ShadowRecord
from ingest.contract.topics import LABELS, SHADOW
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.labels.candidates import CandidateExample
from stream.labels.decisions import read_decisions
from tests.console.conftest import Browser
from tests.console.records import CAPTURED_NS, JPEG, configure, frame, result, write

Open = Callable[..., Browser]


def comparison(seq: int) -> ShadowRecord:
    """Return a comparison in which the candidate gave the object of ``result("gate", seq)`` another label."""
    of = result("gate", seq)
    (found,) = of.detections
    difference = ShadowDifference(
        form="label", box=found.box, label=found.label, score=found.score, other_label="van", other_score=0.8
    )
    return ShadowRecord(
        pipeline="one",
        served="m@1",
        candidate="m@2",
        written_ns=0,
        camera="gate",
        epoch=1,
        seq=seq,
        captured_ns=of.captured_ns,
        source=of.source,
        differences=(difference,),
    )


@pytest.fixture
async def operator(context: ConsoleContext, log: MemoryLog, clock: ManualClock, browser: Open) -> Browser:
    """Return the browser of otto, an operator of site north, with frames of the cameras gate and yard in the log.

    Each camera has frames that are 70 s apart, so that no object repeats another one.
    """
    clock.advance(max(0.0, (CAPTURED_NS - clock.now_ns()) / 1e9 + 3600.0))
    await configure(log)
    for seq, camera in enumerate(("gate", "yard") * 3):
        await write(
            log, frame(camera, 700 * seq), result(camera, 700 * seq).model_copy(update={"source": ("frames", 0, seq)})
        )
    await log.produce(Outgoing(SHADOW, 0, encode(comparison(2800))))
    one = browser()
    await one.sign_in("otto")
    await one.load("/labels")
    one.headers["X-CSRF-Token"] = one.csrf
    await context.feed.catch_up(log)
    return one


async def queue(browser: Browser, **query: str) -> list[dict[str, Any]]:
    """Return the objects that a page gets after it was loaded."""
    response = await browser.get("/api/labels/queue", params={"again": "true", **query})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["objects"]
    return found


async def decide(browser: Browser, object_: str, verdict: str, corrected: str = "") -> int:
    order = {"verdict": verdict, "corrected": corrected}
    return (await browser.post(f"/api/labels/{object_}/decisions", json=order)).status_code


async def test_the_queue_begins_with_objects_on_which_models_disagree(operator: Browser) -> None:
    found = await queue(operator)
    assert found[0]["frame"] == "gate/1/2800"
    assert {one["frame"] for one in found} == {"gate/1/0", "gate/1/1400", "gate/1/2800"}
    assert (found[0]["reason"], found[0]["label"], found[0]["model"]) == ("disagreement", "car", "m@1")
    picture = await operator.get(f"/api/labels/{found[0]['id']}/picture")
    assert picture.content == JPEG
    assert picture.headers["content-type"] == "image/jpeg"


async def test_a_labelled_object_leaves_the_queue_until_its_decision_is_undone(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    one, other, third = await queue(operator)
    assert await decide(operator, one["id"], "accept") == 201
    assert await decide(operator, other["id"], "correct", " van ") == 201
    assert await decide(operator, third["id"], "reject") == 201
    assert await queue(operator) == []
    assert await decide(operator, third["id"], "undo") == 201
    assert [left["id"] for left in await queue(operator)] == [third["id"]]
    decisions = {each.object: each for each in await read_decisions(log)}
    assert {object_: (each.verdict, each.decided, each.by) for object_, each in decisions.items()} == {
        one["id"]: ("accept", "car", "otto"),
        other["id"]: ("correct", "van", "otto"),
    }
    html = await operator.load("/labels")
    assert "correct: van" in html
    assert "<option>van" in html


async def test_decisions_on_labels_are_in_the_audit_trail_with_user_and_frame(
    operator: Browser, context: ConsoleContext
) -> None:
    one = (await queue(operator))[0]
    await decide(operator, one["id"], "correct", "van")
    await decide(operator, one["id"], "undo")
    entries = [entry for entry in context.trail.page("otto") if entry.action.startswith("label_")]
    assert [(entry.action, entry.subject, entry.detail) for entry in entries] == [
        ("label_undo", one["id"], "car → undo, gate/1/2800"),
        ("label_correct", one["id"], "car → van, gate/1/2800"),
    ]


async def test_objects_of_cameras_that_the_user_may_not_see_are_not_found(operator: Browser, browser: Open) -> None:
    admin = browser()
    await admin.sign_in("ada")
    admin.headers["X-CSRF-Token"] = admin.csrf
    (yard, *_) = await queue(admin, camera="yard")
    assert await queue(operator, camera="yard") == []
    assert await decide(operator, yard["id"], "accept") == 404
    assert (await operator.get(f"/api/labels/{yard['id']}/picture")).status_code == 404
    assert await decide(operator, "0" * 32, "accept") == 404
    viewer = browser()
    await viewer.sign_in("vera")
    assert (await viewer.get("/labels")).status_code == 403
    assert (await viewer.get("/api/labels/queue")).status_code == 403


async def test_labels_and_pipelines_of_cameras_that_the_user_may_not_see_are_not_offered(
    operator: Browser, browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    await write(log, result("yard", 9000).model_copy(update={"pipeline": "hidden"}))
    await context.feed.catch_up(log)
    admin = browser()
    await admin.sign_in("ada")
    admin.headers["X-CSRF-Token"] = admin.csrf
    (yard, *_) = await queue(admin, camera="yard")
    assert await decide(admin, yard["id"], "correct", "tram") == 201
    for one, visible in ((admin, True), (operator, False)):
        html = await one.load("/labels")
        assert [f"<option>{name}" in html for name in ("tram", "hidden")] == [visible, visible]
        labels = (await one.get("/api/labels/queue")).json()["labels"]
        assert ("car" in labels, "tram" in labels) == (True, visible)


async def test_two_people_get_different_objects_to_label_until_the_reservation_ends(
    operator: Browser, browser: Open, clock: ManualClock
) -> None:
    first = await queue(operator)
    admin = browser()
    await admin.sign_in("ada")
    assert await queue(admin, camera="gate") == []
    assert await queue(operator) == first
    assert await queue(operator, again="false") == []
    clock.advance(LEASE_S + 1.0)
    assert [one["id"] for one in await queue(admin, camera="gate")] == [one["id"] for one in first]


async def test_a_parked_car_is_offered_for_labelling_once_a_minute(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    for seq in range(5000, 5900, 100):  # 90 s, every ten seconds
        await write(log, result("gate", seq))
    await context.feed.catch_up(log)
    found = [one for one in await queue(operator) if int(one["frame"].split("/")[2]) >= 5000]
    assert len(found) in (1, 2)
    times = sorted(one["captured_ms"] for one in found)
    assert all(later - earlier >= 60_000 for earlier, later in itertools.pairwise(times))


async def test_a_correction_without_a_label_or_without_the_form_s_token_is_refused(
    operator: Browser,
) -> None:
    one = (await queue(operator))[0]
    assert await decide(operator, one["id"], "correct", "  ") == 422
    assert await decide(operator, one["id"], "maybe") == 422
    del operator.headers["X-CSRF-Token"]
    assert await decide(operator, one["id"], "accept") == 403
    assert len(await queue(operator)) == 3


async def test_an_object_stays_in_the_labelling_queue_if_its_decision_cannot_be_written_to_kafka(
    operator: Browser, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = (await queue(operator))[0]

    async def fail(_: Outgoing) -> None:
        raise LogUnavailable("no broker")

    monkeypatch.setattr(log, "produce", fail)
    assert await decide(operator, one["id"], "accept") == 503
    assert (await log.ends(LABELS))[0] == 0
    assert one["id"] in [left["id"] for left in await queue(operator)]


async def test_the_console_stops_reading_results_for_labelling_when_nobody_labels(
    operator: Browser, context: ConsoleContext, clock: ManualClock, log: MemoryLog
) -> None:
    assert context.feed.labelling.in_use
    clock.advance(IDLE_S + 1.0)
    assert not context.feed.labelling.in_use
    await write(log, result("gate", 9000))
    await context.feed.catch_up(log)
    assert "gate/1/9000" not in {str(one.id) for one in context.feed.labelling.frames()}
    await asyncio.sleep(0)


async def test_a_thread_chooses_objects_to_label_so_that_other_pages_answer_meanwhile(
    operator: Browser, context: ConsoleContext
) -> None:
    asked, loaded, waited = asyncio.Event(), threading.Event(), list[bool]()
    loop = asyncio.get_running_loop()

    def wanted(_: CandidateExample) -> bool:
        loop.call_soon_threadsafe(asked.set)
        waited.append(loaded.wait(30.0))
        return True

    choosing = asyncio.create_task(context.feed.labelling.offer(1, wanted, 1))
    await asked.wait()
    assert (await operator.get("/events")).status_code == 200
    loaded.set()
    assert len(await choosing) == 1
    assert all(waited)
