"""Factory of frame sources from a camera's configuration.

The module of a source is imported only when a camera needs that module. A capture process serves only one camera, so
importing the libraries of all kinds of sources would waste memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from edge_agent.exceptions import SourceUnusable
from edge_agent.sources.source import FrameSource
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig

_SCHEMES = ["device", "http", "https", "images", "rtsp", "rtsps", "simulated"]
_FRAMES = "frames"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """Resources that a source needs in addition to its configuration.

    A simulated camera writes a file with its ground truth to ``truth_folder``. The source of an image folder stores
    in ``state_folder`` which picture was read last. ``on_notice`` receives messages for the operator's log, about
    conditions that are not failures.
    """

    clock: Clock
    epoch: int
    truth_folder: Path | None = None
    state_folder: Path | None = None
    on_notice: Callable[[str], None] = lambda _: None


def make_source(camera: CameraConfig, context: SourceContext) -> FrameSource:
    """Return the frame source of a camera. Raise SourceUnusable when ``source`` or an option is invalid."""
    scheme, _, rest = camera.source.partition(":")
    clock, stall_s, on_notice = context.clock, camera.watch.stall_s, context.on_notice
    match scheme.lower():
        case "simulated":
            return _simulated(camera, rest, context)
        case "device":
            from edge_agent.sources.device import DeviceSource

            if not rest.isdigit():
                raise SourceUnusable(f"camera {camera.name}: source = {camera.source!r}: expected device:N")
            return DeviceSource(int(rest), camera.fps, clock, width=camera.width, height=camera.height)
        case "images":
            from edge_agent.sources.images import ImagesSource

            position = context.state_folder / f"{camera.name}.json" if context.state_folder else None
            return ImagesSource(
                Path(rest),
                camera.fps,
                clock,
                position=position,
                existing=camera.stream.existing,
                recursive=camera.stream.recursive,
                on_notice=on_notice,
            )
        case "rtsp" | "rtsps":
            from edge_agent.sources.address import resolve
            from edge_agent.sources.rtsp.stream import StreamSource

            address = resolve(camera.source, camera.stream)
            return StreamSource(address, camera.stream, clock, stall_s=stall_s, on_notice=on_notice)
        case "http" | "https":
            from edge_agent.sources.address import resolve
            from edge_agent.sources.web.source import WebSource

            address = resolve(camera.source, camera.stream)
            return WebSource(address, camera.stream, camera.fps, clock, stall_s=stall_s, on_notice=on_notice)
    if rest.startswith("//"):
        raise SourceUnusable(f"camera {camera.name}: unknown scheme {scheme}: expected one of {_SCHEMES}, or a file")
    from edge_agent.sources.file import FileSource

    return FileSource(Path(camera.source), camera.fps, clock, loop=camera.loop)


def _simulated(camera: CameraConfig, kind: str, context: SourceContext) -> FrameSource:
    from edge_agent.sources.simulated.config import SceneConfig
    from edge_agent.sources.simulated.source import SimulatedSource
    from edge_agent.sources.simulated.truth import TruthWriter

    options = dict(camera.options)
    frames = int(options.pop(_FRAMES, 0))
    known = {field.name for field in fields(SceneConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SourceUnusable(
            f"camera {camera.name}: unknown options {unknown}: expected only {sorted({*known, _FRAMES})}"
        )
    size = {"width": camera.width, "height": camera.height} if camera.width and camera.height else {}
    try:
        config = SceneConfig(
            **{"kind": kind, "fps": camera.fps, **size, **options}  # type: ignore[arg-type]
        )
    except (TypeError, ValueError) as error:
        raise SourceUnusable(f"camera {camera.name}: {error}") from None
    folder = context.truth_folder
    truth = TruthWriter(folder / f"{camera.name}.jsonl", camera.name, config) if folder else None
    return SimulatedSource(config, context.clock, epoch=context.epoch, truth=truth, frames=frames)
