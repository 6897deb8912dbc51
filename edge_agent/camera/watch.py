"""A source that is watched while it is read: how its view is, and what it says, goes to the agent."""

from __future__ import annotations

import queue
from collections import deque

import cv2

from edge_agent.camera.health import ViewCondition, ViewHealth, small
from edge_agent.camera.messages import Message, Notice, ViewChange
from edge_agent.camera.viewmemory import SAVE_EVERY_S, ViewMemory
from edge_agent.exceptions import FrameUnusable
from edge_agent.redact.cover import PrivacyMasks
from edge_agent.sources.source import CapturedFrame, FrameSource, Grey
from ingest.runtime.clock import Clock
from ingest.site import WatchConfig

LOOK_EVERY_S = 0.5
"""Views change slowly, and a look costs half a millisecond."""


class Outbox:
    """Puts what is said into the queue to the agent as soon as it has room. It never waits."""

    def __init__(self, out: queue.Queue[Message | None]) -> None:
        self._out = out
        self._pending: deque[Message] = deque()

    def say(self, text: str) -> None:
        """Tell what an operator should know."""
        self.tell(Notice(text))

    def tell(self, *messages: Message) -> None:
        """Tell messages, after those that wait."""
        self._pending += messages
        while self._pending and not self._out.full():
            self._out.put(self._pending.popleft())


class WatchedSource:
    """Hands on what a source gives, and looks at some of it."""

    def __init__(
        self,
        source: FrameSource,
        config: WatchConfig,
        clock: Clock,
        teller: Outbox,
        memory: ViewMemory | None = None,
        masks: PrivacyMasks | None = None,
    ) -> None:
        self._source, self._clock, self._teller, self._memory = source, clock, teller, memory
        self._masks = masks
        self._health = ViewHealth(config, self._before(config.relearn_s))
        self._view = ViewCondition()
        self._looked_s = -LOOK_EVERY_S
        self._saved_s = clock.monotonic()

    def open(self) -> None:
        """Open the source."""
        self._source.open()

    def read(self) -> CapturedFrame | None:
        """Return what the source gives."""
        captured = self._source.read()
        now_s = self._clock.monotonic()
        if captured is not None and now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look(captured, now_s)
        self._teller.tell()
        return captured

    def close(self) -> None:
        """Close the source."""
        self._source.close()
        self._remember()

    def _look(self, captured: CapturedFrame, now_s: float) -> None:
        try:
            view = self._health.look(self._small(captured), now_s)
        except (cv2.error, FrameUnusable):  # the frame's trouble, which the intake tells
            return
        if view.state != self._view.state:
            self._teller.tell(ViewChange(view.state, view.reason))
        self._view = view
        if now_s - self._saved_s >= SAVE_EVERY_S:
            self._saved_s = now_s
            self._remember()

    def _small(self, captured: CapturedFrame) -> Grey:
        """Return the view without what is masked: its mean over minutes is kept on disk."""
        picture = small(captured.luma())
        return self._masks.darkened(picture) if self._masks else picture

    def _before(self, max_age_s: float) -> Grey | None:
        """Return the memory of an earlier life, without what is masked since then, also on disk."""
        before = self._memory.load(max_age_s) if self._memory else None
        if self._memory is None or before is None or self._masks is None:
            return before
        masked = self._masks.darkened(before)
        if (masked != before).any():
            self._memory.save(masked)
        return masked

    def _remember(self) -> None:
        usual = self._health.memory
        if self._memory and usual is not None:
            self._memory.save(usual)
