"""The wall: live pictures of all cameras with their states."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from console.access.guard import Context, Viewer, signed_in, viewer
from console.access.roles import Identity
from console.context import context_of
from console.exceptions import ConsoleError, NotFound
from console.live.feed import Feed
from console.live.viewer import MAX_WATCHED, LiveViewer
from console.pages.render import page
from ingest.site import CameraConfig
from ingest.site.file import UNNAMED

STATES_S = 1.0
"""Interval at which the states of cameras are sent, if they have changed, in seconds."""
CHECK_S = 15.0
"""Interval at which an open connection is checked for the user's session and rights, in seconds."""
SEND_S = 20.0
"""Time in which a browser must take a message, in seconds. A connection to a browser that does not take a message in
time is closed."""
_CLOSED = 1008
router = APIRouter(include_in_schema=False)


@router.get("/wall")
async def wall(
    request: Request, identity: Viewer, context: Context, site: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Show the live pictures of all cameras that the user may see, or of one site."""
    context.audit_view(request, identity, "wall_viewed", site)
    cameras = context.feed.deployment.visible_cameras(identity)
    sites = sorted({camera.site or UNNAMED for camera in cameras})
    return page(request, identity, "wall.html", sites=sites, site=site, camera="")


@router.get("/wall/{name}")
async def one_camera(request: Request, name: str, identity: Viewer, context: Context) -> Response:
    """Show the live pictures of one camera."""
    deployment = context.feed.deployment
    camera = deployment.camera(name)
    if camera is None or not deployment.sees_camera(identity, name, camera.site):
        raise NotFound("there is no such camera, or you may not see it")
    return page(request, identity, "wall.html", sites=[], site="", camera=name)


@router.websocket("/live")
async def live(websocket: WebSocket, identity: Viewer) -> None:
    """Send live pictures and the states of cameras."""
    await websocket.accept()
    await LiveConnection(websocket, identity).run()


class LiveConnection:
    """The connection to one browser that shows live pictures.

    The browser sends ``{"watch": [CAMERA, …]}`` and, for each picture that it has drawn, ``{"drawn": CAMERA}``. The
    console sends pictures as binary messages (``LivePicture.message``), and the cameras with their states and shapes
    as JSON when they change.
    """

    def __init__(self, websocket: WebSocket, identity: Identity) -> None:
        self._websocket, self._identity = websocket, identity
        self._context = context_of(websocket)
        self._feed = self._context.feed
        self._viewer = LiveViewer()

    async def run(self) -> None:
        """Serve the connection until the browser or the user's session ends it."""
        self._feed.cameras.viewers += 1
        try:
            with self._feed.pictures_changed.subscribed() as woken:
                parts = (self._receive(woken), self._send_pictures(woken), self._send_states(), self._check())
                tasks = [asyncio.create_task(part) for part in parts]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._feed.cameras.viewers -= 1
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the browser has closed the connection
            await self._websocket.close(_CLOSED)

    async def _receive(self, woken: asyncio.Event) -> None:
        with contextlib.suppress(WebSocketDisconnect, ValueError, KeyError, TypeError):
            while True:
                message = json.loads(await self._websocket.receive_text())
                if not isinstance(message, dict):
                    return
                if "watch" in message:
                    self._watch(list(map(str, message["watch"])))
                self._viewer.acknowledge(str(message.get("drawn", "")))
                woken.set()

    def _watch(self, cameras: list[str]) -> None:
        self._viewer.watch(cameras)
        for camera in cameras[:MAX_WATCHED]:
            if self._sees(camera):
                self._context.audit_view(self._websocket, self._identity, "camera_watched", camera)

    async def _send_pictures(self, woken: asyncio.Event) -> None:
        while True:
            woken.clear()
            while picture := self._viewer.next(self._feed.cameras.picture, self._sees):
                async with asyncio.timeout(SEND_S):
                    await self._websocket.send_bytes(picture.message)
            await woken.wait()

    async def _send_states(self) -> None:
        sent = ""
        while True:
            cameras = [_described(self._feed, one) for one in self._feed.deployment.visible_cameras(self._identity)]
            text = json.dumps({"cameras": cameras, "outage": self._feed.outage})
            if text != sent:
                async with asyncio.timeout(SEND_S):
                    await self._websocket.send_text(text)
                sent = text
            await asyncio.sleep(STATES_S)

    async def _check(self) -> None:
        """End when the user's session ends or the user may no longer see any picture."""
        with contextlib.suppress(ConsoleError):
            while True:
                await asyncio.sleep(CHECK_S)
                self._identity = await viewer(await signed_in(self._websocket))

    def _sees(self, camera: str) -> bool:
        return self._feed.deployment.sees_camera(self._identity, camera)


def _described(feed: Feed, camera: CameraConfig) -> dict[str, Any]:
    """Return a camera as browsers get it."""
    state = feed.statuses.state_of(camera)
    return {
        "name": camera.name,
        "site": camera.site or UNNAMED,
        "place": camera.place or "",
        "state": state.name,
        "look": state.look,
        "reason": state.reason,
        "shapes": [
            {"kind": shape.kind, "name": shape.name, "points": shape.points}
            for shape in feed.deployment.shapes_of(camera)
        ],
    }
