"""Tests of the verdicts and the clients of ``benchmarks.console``."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.chaos.plan import BROKER
from benchmarks.console.latency import arrivals
from benchmarks.console.outages import STORE, AlertRecords, OutageWindow, page_faults
from benchmarks.console.pages import BROKER_TEXT, STORE_TEXT, FollowedPage, PageView
from benchmarks.console.sockets import BINARY, TEXT, LiveClient, SocketFrame, client_frame, frames_in
from benchmarks.console.viewers import ViewerTurn, summary
from console.access.guard import SESSION
from console.access.roles import Limits, Role
from console.app import make_app
from console.context import ConsoleContext
from console.server import ServerOptions, listen, serve
from ingest.contract.records import Clip, Evidence, EvidenceRecord
from ingest.kafka.memorylog import MemoryLog
from ingest.site import ClipConfig
from tests.console.records import alert, configure, event, frame, result, write

WINDOWS = {BROKER: OutageWindow(100.0, 160.0, 0, 1), STORE: OutageWindow(200.0, 260.0, 2, 3)}


def page(*views: tuple[float, float, str]) -> FollowedPage:
    """Return a page with responses: the time of the request, the time of the response, and the named fault."""
    found = [PageView(asked_s, got_s, 200, frozenset({text} if text else ())) for asked_s, got_s, text in views]
    return FollowedPage("/system", found)


GOOD = (
    (101.0, 101.1, ""),
    (105.0, 108.0, BROKER_TEXT),
    (159.0, 159.1, BROKER_TEXT),
    (170.0, 170.1, ""),
    (206.0, 206.1, STORE_TEXT),
    (262.0, 262.1, STORE_TEXT),
    (264.0, 264.1, ""),
)


def test_a_console_page_passes_if_it_reports_each_outage_in_time_and_stops_when_the_outage_ends() -> None:
    assert page_faults([page(*GOOD)], WINDOWS) == []


@pytest.mark.parametrize(
    ("views", "fault"),
    [
        (GOOD[:1] + GOOD[2:], "/system named the outage of the broker after 59.1 s"),
        (GOOD[:4] + GOOD[6:], "/system named the outage of the evidence store after None s"),
        (GOOD[:6], "/system names the outage of the evidence store although it has ended"),
        ((*GOOD, (110.0, 119.0, BROKER_TEXT)), "/system took 9.0 s during the outage of the broker"),
    ],
)
def test_a_console_page_fails_if_it_responds_slowly_or_reports_an_outage_too_late_or_after_its_end(
    views: tuple[tuple[float, float, str], ...], fault: str
) -> None:
    assert page_faults([page(*views)], WINDOWS) == [fault]


def test_a_request_without_a_response_fails_the_page() -> None:
    followed = page(*GOOD)
    followed.views.append(PageView(300.0, 301.0, 0, frozenset()))
    assert page_faults([followed], WINDOWS) == ["/system: 1 requests failed"]


def test_an_alert_without_picture_or_clip_is_incomplete_until_the_evidence_record_has_them() -> None:
    raised = alert(event(1))
    wanted = raised.data.model_copy(
        update={"clip": ClipConfig(before_s=1, after_s=1), "evidence": (), "evidence_missing": "the store failed"}
    )
    records = AlertRecords(alerts=[raised.model_copy(update={"data": wanted})])
    faults = [f"{raised.id} has no picture: the store failed", f"{raised.id} has no clip: no record"]
    assert records.incomplete() == faults
    assert records.silent() == []
    files = tuple(
        Evidence(name=f"gate/{kind}", url="", sha256="0" * 64, media_type=kind, size=1)
        for kind in ("image/jpeg", "video/mp4")
    )
    stored = EvidenceRecord(state="stored", alert=raised.id, at_ns=1, files=files, clip=Clip(from_ns=0, to_ns=1))
    records.evidence[raised.id] = stored
    assert records.incomplete() == []


def test_an_alert_with_neither_picture_nor_reason_is_a_fault() -> None:
    raised = alert(event(1))
    silent = raised.data.model_copy(update={"evidence": (), "evidence_missing": ""})
    records = AlertRecords(alerts=[raised.model_copy(update={"data": silent})])
    assert records.silent() == [f"{raised.id} has neither a picture nor a reason"]


@pytest.mark.parametrize("size", [0, 125, 126, 70_000])
def test_the_websocket_client_reads_messages_that_arrive_in_parts_of_1000_bytes(size: int) -> None:
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65_536 else None
    head = bytes([0x80 | BINARY]) + (length or b"\x7f" + struct.pack(">Q", size))
    sent, buffer, found = 2 * (head + b"x" * size), bytearray(), list[SocketFrame]()
    for at in range(0, len(sent), 1000):
        buffer += sent[at : at + 1000]
        found += frames_in(buffer)
    assert found == 2 * [SocketFrame(BINARY, b"x" * size)]
    assert not buffer


@pytest.mark.parametrize("size", [3, 300])
def test_a_message_of_the_websocket_client_is_one_masked_frame(size: int) -> None:
    frame = client_frame(TEXT, b"a" * size)
    assert frame[0] == 0x81
    assert frame[1] & 0x80
    assert frame.endswith(bytes(4) + b"a" * size)


def test_a_viewer_counts_each_picture_and_acknowledges_it() -> None:
    client, sent = LiveClient(1, "c"), list[SocketFrame]()
    client._send = lambda opcode, message: sent.append(SocketFrame(opcode, json.dumps(message).encode()))  # type: ignore[method-assign]
    client._upgraded = True
    header = json.dumps({"camera": "gate"}).encode()
    payload = struct.pack(">I", len(header)) + header + b"jpeg"
    cameras = json.dumps({"cameras": [{"name": "gate"}]}).encode()
    client.data_received(bytes([0x81, len(cameras)]) + cameras + bytes([0x82, len(payload)]) + payload)
    assert [json.loads(one.payload) for one in sent] == [{"watch": ["gate"]}, {"drawn": "gate"}]
    assert client.pictures == {"gate": 1}


async def test_a_viewer_gets_live_pictures_from_a_running_console(tmp_path: Path) -> None:
    log, stop = MemoryLog(), asyncio.Event()
    context = ConsoleContext(tmp_path, make_log=lambda _: log)
    user = context.users.add("ada", "no password", Role.ADMIN, Limits(everywhere=True), must_change=False)
    cookie = f"{SESSION}={context.sessions.open(user.id, '127.0.0.1', 'test')}"
    await configure(log)
    await write(log, frame("gate", 0), result("gate", 0))
    context.feed.cameras.viewers += 1
    await context.feed.catch_up(log)
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(make_app(context), listener, ServerOptions(), stop))
        port = listener.getsockname()[1]
        client = LiveClient(port, cookie)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
        async with asyncio.timeout(30.0):
            while not client.pictures:
                await asyncio.sleep(0.01)
        client.close()
        stop.set()
        await serving
    context.close()
    assert client.pictures == {"gate": 1}


async def test_each_message_of_the_api_event_stream_gets_its_latency_since_capture_and_is_marked_live_or_not() -> (
    None
):
    now_ns = time.time_ns()

    async def lines() -> AsyncIterator[str]:
        for kind, data in (
            ("event", {"camera": "gate", "lane": "live"}),
            ("event", {"camera": "gate", "lane": "late"}),
            ("delivery", {}),
            ("alert", {"sensor": "boiler"}),
        ):
            yield f"event: {kind}"
            yield f"data: {json.dumps({'data': {'captured_ns': now_ns - 5_000_000_000, **data}})}"
            yield ""

    found = [one async for one in arrivals(lines())]
    assert [(one.kind, one.live) for one in found] == [("event", True), ("event", False), ("alert", False)]
    assert all(one.latency_ms >= 5000.0 for one in found)


def test_the_viewer_benchmark_reports_medians_of_the_turns_with_viewers_and_of_those_without_viewers() -> None:
    turns = [ViewerTurn(2 * (n % 2), 0, 1, 0.1 * n, 100.0 + n, 0.0, (9.0, 8.0) * (n % 2)) for n in range(4)]
    report = summary(turns, {0: [10.0], 1: [20.0], 2: [12.0], 3: [30.0]})
    assert report["medians"]["without"] == {"console_cores": 0.1, "console_mb": 101.0, "p50": 11.0, "p99": 11.0}
    assert report["medians"]["with"]["p99"] == 25.0
    assert report["turns"][1]["pictures_per_s"] == {"least": 8.0, "median": 8.5}
