"""Frame source that checks the camera's view twice a second and reports changes of the view to the agent."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from pathlib import Path

import cv2
import numpy as np

from edge_agent.camera.health import ViewHealth, small
from edge_agent.camera.messages import Message, ViewCondition
from edge_agent.exceptions import FrameUnusable
from edge_agent.redact.cover import PrivacyMasks
from edge_agent.sources.source import CapturedFrame, FrameSource, Grey
from ingest.runtime.clock import Clock
from ingest.runtime.files import make_folder, write_private
from ingest.site import WatchConfig

LOOK_EVERY_S = 0.5
"""Interval between two checks of the view, in seconds. A view changes slowly, and each check costs 0.5 ms."""
SAVE_EVERY_S = 60.0
"""Interval at which the picture of the usual view is saved to disk, in seconds."""


class Outbox:
    """Unlimited buffer of messages that wait for free space in the queue to the agent. ``send`` never blocks."""

    def __init__(self, out: queue.Queue[Message | None]) -> None:
        self._out = out
        self._pending: deque[Message] = deque()

    def send(self, *messages: Message) -> None:
        """Append messages to the buffer, and move the oldest messages of the buffer to the queue until the queue is
        full."""
        self._pending += messages
        while self._pending and not self._out.full():
            self._out.put(self._pending.popleft())


class ViewMemory:
    """File with a small picture of a camera's usual view.

    The file survives restarts of the capture process. Somebody who wants to turn a camera away often unplugs the
    camera first, which restarts the capture process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, max_age_s: float) -> Grey | None:
        """Return the saved picture; None if no picture is saved or the picture is older than ``max_age_s``."""
        try:
            if time.time() - self._path.stat().st_mtime > max_age_s:
                return None
            picture = cv2.imdecode(np.frombuffer(self._path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        except (OSError, cv2.error):
            return None
        return None if picture is None else np.asarray(picture, np.uint8)

    def forget(self) -> None:
        """Delete the file with the saved picture if it exists."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def save(self, picture: Grey) -> None:
        """Replace the saved picture atomically.

        Ignore disk errors, because only the saved picture is lost.
        """
        encoded, data = cv2.imencode(".png", picture)
        temporary = self._path.with_suffix(".new")
        try:
            make_folder(self._path.parent)
            write_private(temporary, data.tobytes() if encoded else b"")
            temporary.replace(self._path)
        except OSError:
            return


class WatchedSource:
    """Frame source that returns the frames of another source, and checks the camera's view in two frames a second."""

    def __init__(
        self,
        source: FrameSource,
        config: WatchConfig,
        clock: Clock,
        outbox: Outbox,
        memory: ViewMemory | None = None,
        masks: PrivacyMasks | None = None,
    ) -> None:
        self._source, self._clock, self._outbox, self._memory = source, clock, outbox, memory
        self._masks = masks
        self._health = ViewHealth(config, self._before(config.relearn_s))
        self._view = ViewCondition()
        self._looked_s = -LOOK_EVERY_S
        self._saved_s = clock.monotonic()

    def open(self) -> None:
        """Open the wrapped source."""
        self._source.open()

    def read(self) -> CapturedFrame | None:
        """Return the next frame of the wrapped source, or None if the source has no frame yet."""
        captured = self._source.read()
        now_s = self._clock.monotonic()
        if captured is not None and now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look(captured, now_s)
        if captured is not None:
            captured.view = self._view.state
        self._outbox.send()
        return captured

    def close(self) -> None:
        """Close the wrapped source and save the picture of the usual view."""
        self._source.close()
        self._save()

    def _look(self, captured: CapturedFrame, now_s: float) -> None:
        try:
            view = self._health.look(self._small(captured), now_s)
        except (cv2.error, FrameUnusable):  # the intake reports unusable frames
            return
        if view.state != self._view.state:
            self._outbox.send(view)
        self._view = view
        if now_s - self._saved_s >= SAVE_EVERY_S:
            self._saved_s = now_s
            self._save()

    def _small(self, captured: CapturedFrame) -> Grey:
        """Return a small picture of the frame with the privacy masks applied, because an average of these pictures is
        saved to disk."""
        picture = small(captured.luma())
        return self._masks.darkened(picture) if self._masks else picture

    def _before(self, max_age_s: float) -> Grey | None:
        """Return the picture of the usual view that an earlier capture saved.

        Apply all privacy masks to the returned picture and to the saved file, because the site file may contain new
        masks.
        """
        before = self._memory.load(max_age_s) if self._memory else None
        if self._memory is None or before is None or self._masks is None:
            return before
        masked = self._masks.darkened(before)
        if (masked != before).any():
            self._memory.save(masked)
        return masked

    def _save(self) -> None:
        usual = self._health.memory
        if self._memory and usual is not None:
            self._memory.save(usual)
