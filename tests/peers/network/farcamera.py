"""A camera at the far end of a bad wire, its agent at the near end, and what is found of the frames it kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

from edge_agent.camera import children
from ingest.contract.records import Frame
from ingest.runtime.tether import tethered
from ingest.site import CameraConfig
from tests.peers.network.badwire import FAR, BadWire
from tests.peers.numbered import Clip, Sent
from tests.peers.rig import Epoch, Rig
from tests.peers.rtsp import RtspServer

__all__ = ["FarCamera", "Found"]

SERVER_OWN_MS = 150.0
"""Between a frame's being due and its time stamp, on a busy machine."""


@dataclasses.dataclass
class Found:
    """What the spool has of a camera. From ``unbalanced_epochs`` on, each is 0 when all is well."""

    epochs: int = 0
    captured: int = 0
    kept: int = 0
    withheld: Counter[str] = dataclasses.field(default_factory=Counter)
    unbalanced_epochs: int = 0
    damaged: int = 0
    """Pictures that were kept and are not what was sent."""
    untrue: int = 0
    """Times that are farther off than they say."""
    backwards: int = 0
    """Times that are not later than the one before."""
    behind_s: float = 0.0
    """The longest from when a frame was sent until it arrived, of those that have the host's time."""


class FarCamera:
    """An RTSP server at the far end that sends a clip of numbered pictures, and a rig that captures it."""

    def __init__(
        self, folder: Path, wire: BadWire, clip: Path, *, transport: str, cap_s: float, **watch: float
    ) -> None:
        """Units are beside the clip. ``cap_s`` bounds the back-off; ``watch`` is as in the site file."""
        self._clip, self._wire = Clip(clip), wire
        self.server = RtspServer({"film": clip.with_suffix(".units")}, within=wire.far, host=FAR)
        self.server.start()
        self.rig = Rig(folder)
        all_of_it = {"motion": False, "max_fps": 0.0, "open_fps": 0.0}  # frames come in bunches
        fields = {"gate": all_of_it, "watch": watch, "stream": {"transport": transport}}
        config = CameraConfig.model_validate({"name": "far", "source": self.server.url("film"), **fields})
        self.camera = self.rig.add(config, cap_s=cap_s)

    @contextmanager
    def near(self) -> Iterator[None]:
        """Start capture children at the near end of the wire meanwhile."""
        with mock.patch.object(children, "tethered", lambda command: [*self._wire.near, *tethered(command)]):
            yield

    def close(self) -> None:
        """End the server, and close the spool."""
        self.server.kill()
        self.rig.close()

    def found(self) -> Found:
        """Hold what was kept against what was sent. Call it when nothing runs any more; it ends the server."""
        self.server.kill()
        found = Found()
        for epoch in self.rig.epochs("far").values():
            found.epochs += 1
            found.captured += epoch.end.last + 1 if epoch.end else 0
            found.kept += len(epoch.frames)
            found.withheld += epoch.withheld
            found.unbalanced_epochs += not _balanced(epoch)
            found.backwards += sum(a.captured_ns >= b.captured_ns for a, b in pairwise(epoch.frames))
            for frame, sent in zip(epoch.frames, self._clip.sent(epoch.frames, self.server.begun_ns), strict=True):
                _enter(found, frame, sent)
        return found


def _enter(found: Found, frame: Frame, sent: Sent) -> None:
    later_s = (frame.captured_ns - sent.at_ns) / 1e9
    found.damaged += not sent.sound
    if frame.captured_error_ms is None:
        found.behind_s = max(found.behind_s, later_s)
    else:
        found.untrue += abs(later_s) * 1e3 > frame.captured_error_ms + SERVER_OWN_MS


def _balanced(epoch: Epoch) -> bool:
    try:
        epoch.require_whole()
    except AssertionError:
        return False
    return True
