"""Configuration of a camera: its source, gate, redaction, encoding and spool."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ingest.site.agent import SpoolConfig
from ingest.site.capture import StreamConfig, WatchConfig, has_secret
from ingest.site.entry import ConfigEntry
from ingest.site.gate import GateConfig
from ingest.site.picture import EncodeConfig, RedactConfig


class CameraConfig(ConfigEntry):
    """Configuration of a camera.

    ``source`` is an address (``rtsp``, ``rtsps``, ``http``, ``https``), ``device:N``, ``images:FOLDER``,
    ``simulated:SCENE`` or a video file's path.
    """

    KIND: ClassVar[str] = "camera"

    source: str
    site: str = ""
    fps: float = Field(default=10.0, gt=0.0)
    """Rate at which files, scenes and images are played and snapshots fetched, and that a device is asked for."""
    loop: bool = False
    """Play a file again from its start when it ends."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    """0 keeps the source's own size. A simulated scene is rendered in this size, 640×360 by default."""
    options: dict[str, str | int | float | bool] = {}
    """Options of a simulated scene: seed, light, rain, noise_sigma, density, frames."""
    stream: StreamConfig = StreamConfig()
    watch: WatchConfig = WatchConfig()
    gate: GateConfig = GateConfig()
    redact: RedactConfig = RedactConfig()
    encode: EncodeConfig = EncodeConfig()
    spool: SpoolConfig = SpoolConfig()

    @model_validator(mode="after")
    def _pre_roll_is_live(self) -> Self:
        if self.gate.motion and 0.0 < self.spool.late_after_s <= self.gate.pre_roll_s:
            raise ValueError(
                "expected gate.pre_roll_s below spool.late_after_s: a frame that waits longer goes to the late lane"
            )
        return self

    @field_validator("source")
    @classmethod
    def _has_no_password(cls, source: str) -> str:
        if has_secret(source):
            raise ValueError(
                "expected no password in the address: use stream.password_file, or write ${NAME} instead"
            )
        return source
