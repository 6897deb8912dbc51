"""Tests of the wall: the page, and the WebSocket with live pictures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from console.app import make_app
from console.context import ConsoleContext
from console.pages import wall
from ingest.contract.records import Frame, Result
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, RuleEntry
from tests.console.conftest import ADDRESS, Browser
from tests.console.records import JPEG, configure, frame, result, status, write
from tests.console.sockets import Socket, SocketClosed, connected

Open = Callable[..., Browser]
HOST = ADDRESS.removeprefix("http://")


def headers(browser: Browser, **more: str) -> dict[str, str]:
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
    return {"host": HOST, "cookie": cookies, **more}


async def show(context: ConsoleContext, log: MemoryLog, *records: Frame | Result) -> None:
    await write(log, *records)
    await context.feed.catch_up(log)


async def picture(socket: Socket) -> dict[str, object]:
    while True:
        message = await socket.read()
        if "frame" in message:
            return message


async def test_the_wall_shows_cameras_with_states_and_pictures_with_boxes(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    one = browser()
    await one.sign_in("ada")
    assert (await one.get("/")).headers["location"] == "/wall"
    assert "<canvas" in await one.load("/wall")
    await configure(log)
    await write(log, status("gate", captured=1, kept=1))
    await context.feed.catch_up(log)
    async with connected(make_app(context), "/live", headers(one)) as socket:
        cameras = (await socket.read())["cameras"]
        assert [(c["name"], c["site"], c["place"], c["state"]) for c in cameras] == [
            ("gate", "north", "door", "live"),
            ("yard", "south", "", "unknown"),
        ]
        assert [shape["name"] for shape in cameras[0]["shapes"]] == ["mask", "inside"]
        await socket.send({"watch": ["gate", "yard"]})
        await show(context, log, frame("gate", 1), result("gate", 1))
        shown = await picture(socket)
        assert (shown["camera"], shown["boxes"], shown["image"]) == ("gate", [[1, 2, 30, 20, "car", 0.88]], JPEG)
    assert context.feed.cameras.viewers == 0
    assert context.trail.page(action="wall_viewed")


async def test_all_viewers_get_the_same_bytes_and_a_slow_viewer_does_not_hold_up_another(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    one, app = browser(), make_app(context)
    await one.sign_in("ada")
    await configure(log)
    await context.feed.catch_up(log)
    async with connected(app, "/live", headers(one)) as fast, connected(app, "/live", headers(one)) as slow:
        for socket in (fast, slow):
            await socket.read()
            await socket.send({"watch": ["gate"]})
        for seq in range(5):
            await show(context, log, frame("gate", seq), result("gate", seq))
            assert (await picture(fast))["frame"] == f"gate/1/{seq}"
            await fast.send({"drawn": "gate"})
        assert (await picture(slow))["frame"] == "gate/1/0"
        await slow.send({"drawn": "gate"})
        assert (await picture(slow))["frame"] == "gate/1/4"


async def test_a_viewer_gets_no_live_picture_of_a_camera_that_the_user_may_not_see(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    one = browser()
    await one.sign_in("vera")
    await configure(log)
    await context.feed.catch_up(log)
    assert (await one.get("/wall/gate")).status_code == 200
    assert (await one.get("/wall/yard")).status_code == 404
    assert (await one.get("/wall/none")).status_code == 404
    async with connected(make_app(context), "/live", headers(one)) as socket:
        assert [camera["name"] for camera in (await socket.read())["cameras"]] == ["gate"]
        await socket.send({"watch": ["yard", "none", "gate"]})
        await show(context, log, frame("yard", 1), frame("gate", 1))
        assert (await picture(socket))["camera"] == "gate"
        await socket.send({"drawn": "gate"})
        await show(context, log, frame("yard", 2), frame("gate", 2))
        assert (await picture(socket))["camera"] == "gate"


@pytest.mark.parametrize("more", [{}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_a_websocket_without_a_session_or_of_another_site_is_refused(
    browser: Open, context: ConsoleContext, more: dict[str, str]
) -> None:
    one = browser()
    if more:
        await one.sign_in("ada")
    async with connected(make_app(context), "/live", headers(one, **more)) as socket:
        with pytest.raises(SocketClosed):
            await socket.read()


@pytest.mark.parametrize("text", ["{", "[]", '{"watch": 5}', '{"watch": null}', "1"])
async def test_a_malformed_message_ends_only_its_own_connection(
    browser: Open, context: ConsoleContext, text: str
) -> None:
    one = browser()
    await one.sign_in("ada")
    async with connected(make_app(context), "/live", headers(one)) as socket:
        await socket.read()
        await socket.send_text(text)
        with pytest.raises(SocketClosed):
            await socket.read()


async def test_the_live_picture_connection_closes_when_its_user_signs_out(
    browser: Open, context: ConsoleContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall, "CHECK_S", 0.01)
    one = browser()
    await one.sign_in("ada")
    async with connected(make_app(context), "/live", headers(one)) as socket:
        await socket.read()
        await one.submit("/sign-out")
        with pytest.raises(SocketClosed):
            await socket.read()


async def test_names_from_the_log_are_escaped(browser: Open, context: ConsoleContext, log: MemoryLog) -> None:
    one, script = browser(), "<script>alert(1)</script>"
    await one.sign_in("ada")
    await configure(
        log,
        CameraConfig(name="evil", source="device:3", site=script),
        RuleEntry(name="evil-rule", type="zone", camera="evil", polygon=[[0, 0], [1, 0], [1, 1]]),
    )
    await context.feed.catch_up(log)
    html = await one.load(f"/wall?site={script}")
    assert script not in html
    assert "&lt;script&gt;" in html
