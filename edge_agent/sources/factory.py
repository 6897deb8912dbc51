"""From a camera's configuration to its source.

Each kind of source is imported where it is made: a child has one camera, and libraries for others are memory for
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from edge_agent.exceptions import SourceUnusable
from edge_agent.sources.source import FrameSource
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig

_FRAMES = "frames"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is given beside its configuration.

    A simulated camera writes its truth to ``truth_folder``, one file per camera; a folder of images remembers its
    place in ``state_folder``. ``said`` hears what an operator should know and what is no failure.
    """

    clock: Clock
    epoch: int
    truth_folder: Path | None = None
    state_folder: Path | None = None
    said: Callable[[str], None] = lambda _: None


def make_source(camera: CameraConfig, around: SourceContext) -> FrameSource:
    """Make a camera's source. Raise SourceUnusable when ``source`` or an option makes no sense."""
    scheme, _, rest = camera.source.partition(":")
    make = _KINDS.get(scheme.lower())
    if make is None and rest.startswith("//"):
        raise SourceUnusable(
            f"camera {camera.name}: {scheme} is not read: expected one of {sorted(_KINDS)} or a file"
        )
    return make(camera, rest, around) if make else _file(camera, around)


def _file(camera: CameraConfig, around: SourceContext) -> FrameSource:
    from edge_agent.sources.file import FileSource

    return FileSource(Path(camera.source), camera.fps, around.clock, loop=camera.loop)


def _rtsp(camera: CameraConfig, _: str, around: SourceContext) -> FrameSource:
    from edge_agent.sources.address import resolve
    from edge_agent.sources.rtsp.stream import StreamSource

    address = resolve(camera.source, camera.stream)
    return StreamSource(address, camera.stream, around.clock, stall_s=camera.watch.stall_s, said=around.said)


def _web(camera: CameraConfig, _: str, around: SourceContext) -> FrameSource:
    from edge_agent.sources.address import resolve
    from edge_agent.sources.web import WebSource

    address = resolve(camera.source, camera.stream)
    return WebSource(address, camera.stream, camera.fps, around.clock, stall_s=camera.watch.stall_s)


def _images(camera: CameraConfig, folder: str, around: SourceContext) -> FrameSource:
    from edge_agent.sources.images import ImagesSource

    place = around.state_folder / f"{camera.name}.json" if around.state_folder else None
    existing, said = camera.stream.existing, around.said
    return ImagesSource(Path(folder), camera.fps, around.clock, place=place, existing=existing, said=said)


def _device(camera: CameraConfig, number: str, around: SourceContext) -> FrameSource:
    from edge_agent.sources.device import DeviceSource

    if not number.isdigit():
        raise SourceUnusable(f"camera {camera.name}: source = {camera.source!r}: expected device:N")
    return DeviceSource(int(number), camera.fps, around.clock, width=camera.width, height=camera.height)


def _simulated(camera: CameraConfig, kind: str, around: SourceContext) -> FrameSource:
    from edge_agent.sources.simulated.config import SceneConfig
    from edge_agent.sources.simulated.source import SimulatedSource
    from edge_agent.sources.simulated.truth import TruthWriter

    options = dict(camera.options)
    frames = int(options.pop(_FRAMES, 0))
    known = {field.name for field in fields(SceneConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SourceUnusable(f"camera {camera.name}: options {unknown}: expected some of {sorted({*known, _FRAMES})}")
    size = {"width": camera.width, "height": camera.height} if camera.width and camera.height else {}
    try:
        config = SceneConfig(
            **{"kind": kind, "fps": camera.fps, **size, **options}  # type: ignore[arg-type]
        )
    except (TypeError, ValueError) as error:
        raise SourceUnusable(f"camera {camera.name}: {error}") from None
    folder = around.truth_folder
    truth = TruthWriter(folder / f"{camera.name}.jsonl", camera.name, config) if folder else None
    return SimulatedSource(config, around.clock, epoch=around.epoch, truth=truth, frames=frames)


_KINDS: dict[str, Callable[[CameraConfig, str, SourceContext], FrameSource]] = {
    "simulated": _simulated,
    "device": _device,
    "images": _images,
    "rtsp": _rtsp,
    "rtsps": _rtsp,
    "http": _web,
    "https": _web,
}
