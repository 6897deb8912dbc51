"""From a camera's configuration to its source."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from edge_agent.capture.simulated.config import SceneConfig
from edge_agent.capture.simulated.source import SimulatedSource
from edge_agent.capture.simulated.truth import TruthWriter
from edge_agent.capture.source import FrameSource
from edge_agent.capture.video import DeviceSource, FileSource
from edge_agent.exceptions import SourceUnusable
from ingest.clock import Clock
from ingest.site import CameraConfig

__all__ = ["make_source"]

_SIMULATED, _DEVICE = "simulated:", "device:"
_FRAMES = "frames"


def make_source(camera: CameraConfig, clock: Clock, *, epoch: int, truth_folder: Path | None = None) -> FrameSource:
    """Make a camera's source. Raise SourceUnusable when ``source`` or an option makes no sense.

    A simulated camera writes its truth to ``truth_folder``, one file per camera.
    """
    if camera.source.startswith(_SIMULATED):
        return _simulated(camera, clock, epoch, truth_folder)
    if camera.source.startswith(_DEVICE):
        number = camera.source.removeprefix(_DEVICE)
        if not number.isdigit():
            raise SourceUnusable(f"camera {camera.name}: source = {camera.source!r}: expected device:N")
        return DeviceSource(int(number), camera.fps, clock, width=camera.width, height=camera.height)
    return FileSource(Path(camera.source), camera.fps, clock, loop=camera.loop)


def _simulated(camera: CameraConfig, clock: Clock, epoch: int, truth_folder: Path | None) -> FrameSource:
    options = dict(camera.options)
    frames = int(options.pop(_FRAMES, 0))
    known = {field.name for field in fields(SceneConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SourceUnusable(f"camera {camera.name}: options {unknown}: expected some of {sorted({*known, _FRAMES})}")
    size = {"width": camera.width, "height": camera.height} if camera.width and camera.height else {}
    try:
        config = SceneConfig(
            **{"kind": camera.source.removeprefix(_SIMULATED), "fps": camera.fps, **size, **options}  # type: ignore[arg-type]
        )
    except (TypeError, ValueError) as error:
        raise SourceUnusable(f"camera {camera.name}: {error}") from None
    truth = TruthWriter(truth_folder / f"{camera.name}.jsonl", camera.name, config) if truth_folder else None
    return SimulatedSource(config, clock, epoch=epoch, truth=truth, frames=frames)
