"""Camera at the far end of a bad wire, captured at the near end, with an evaluation of its kept frames."""

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
"""Maximum delay between a frame's due time and its time stamp, on a busy machine."""


@dataclasses.dataclass
class Found:
    """Evaluation of a camera's spooled frames. The counts from ``unbalanced_epochs`` on are errors."""

    epochs: int = 0
    captured: int = 0
    kept: int = 0
    withheld: Counter[str] = dataclasses.field(default_factory=Counter)
    unbalanced_epochs: int = 0
    damaged: int = 0
    """Number of kept pictures that differ from the sent pictures."""
    untrue: int = 0
    """Number of frame times whose error is larger than the stated error."""
    backwards: int = 0
    """Number of frame times that are not later than the previous frame time."""
    behind_s: float = 0.0
    """Longest delay from sending to arrival, among frames with the host's time."""


class FarCamera:
    """RTSP server at the far end that sends numbered pictures, and a rig that captures them."""

    def __init__(
        self, folder: Path, wire: BadWire, clip: Path, *, transport: str, cap_s: float, **watch: float
    ) -> None:
        """Start the server. ``cap_s`` limits the back-off; ``watch`` has the options of the site file."""
        self._clip, self._wire = Clip(clip), wire
        self.server = RtspServer({"film": clip.with_suffix(".units")}, within=wire.far, host=FAR)
        self.server.start()
        self.rig = Rig(folder)
        keep_all = {"motion": False, "max_fps": 0.0, "open_fps": 0.0}  # frames arrive in bursts
        fields = {"gate": keep_all, "watch": watch, "stream": {"transport": transport}}
        config = CameraConfig.model_validate({"name": "far", "source": self.server.url("film"), **fields})
        self.camera = self.rig.add(config, cap_s=cap_s)

    @contextmanager
    def near(self) -> Iterator[None]:
        """Start capture children at the near end of the wire during the context."""
        with mock.patch.object(children, "tethered", lambda command: [*self._wire.near, *tethered(command)]):
            yield

    def close(self) -> None:
        """Stop the server and close the spool."""
        self.server.kill()
        self.rig.close()

    def found(self) -> Found:
        """Stop the server, and compare kept and sent frames. Call this method when no camera runs."""
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
    found.damaged += not sent.intact
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
