"""A camera of a site: where its frames come from, what of them is worth sending, and what is kept meanwhile."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ingest.site.capture import StreamConfig, WatchConfig, has_secret
from ingest.site.encode import EncodeConfig
from ingest.site.entry import ConfigEntry
from ingest.site.gate import GateConfig
from ingest.site.redact import RedactConfig
from ingest.site.spool import SpoolConfig


class CameraConfig(ConfigEntry):
    """A camera.

    ``source`` is an address (``rtsp``, ``rtsps``, ``http``, ``https``), ``device:N``, ``images:FOLDER``,
    ``simulated:SCENE`` or a video file's path.
    """

    KIND: ClassVar[str] = "camera"

    source: str
    site: str = ""
    fps: float = Field(default=10.0, gt=0.0)
    """The pace at which files, scenes and images are played and snapshots fetched; a device is asked for it."""
    loop: bool = False
    """Play a file again from the start when it ends."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    """0 keeps the source's own size; a simulated scene is rendered in this one (640×360 by default)."""
    options: dict[str, str | int | float | bool] = {}
    """Options of the source: a scene's seed, light, rain, noise_sigma, density."""
    stream: StreamConfig = StreamConfig()
    watch: WatchConfig = WatchConfig()
    gate: GateConfig = GateConfig()
    redact: RedactConfig = RedactConfig()
    encode: EncodeConfig = EncodeConfig()
    spool: SpoolConfig = SpoolConfig()

    @model_validator(mode="after")
    def _pre_roll_is_live(self) -> Self:
        if self.gate.motion and 0.0 < self.spool.late_after_s <= self.gate.pre_roll_s:
            raise ValueError("expected gate.pre_roll_s below spool.late_after_s: what waits for longer is not live")
        return self

    @field_validator("source")
    @classmethod
    def _keeps_its_secret(cls, source: str) -> str:
        if has_secret(source):
            raise ValueError("no password in the address: put it into stream.password_file, or write ${NAME} for it")
        return source
