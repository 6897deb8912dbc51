"""Configuration of a camera: its stream, the checks for frozen, black or covered pictures, and the masking of secrets
in addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ingest.contract.identity import place_key
from ingest.contract.records.base import Name
from ingest.runtime.url import require_port
from ingest.site.agent import SpoolConfig
from ingest.site.entry import ConfigEntry, ConfigSection, PositiveSeconds, Seconds, to_pixels
from ingest.site.gate import GateConfig
from ingest.site.ground import GroundConfig
from ingest.site.lens import LensConfig
from ingest.site.picture import EncodeConfig, RedactConfig

_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s/?#@]*)@", re.IGNORECASE)
"""Pattern of a login in a URL. The pattern limits the scheme to 31 characters, because without a limit the search in
a long word would take quadratic time."""
LOGIN = "pass|pwd|psw|secret|token|key|auth|user|usr|login"
"""Words that mark a parameter of a camera's URL as part of a login. The value of a parameter whose name contains one
of these words is masked."""
_PARAMETER = re.compile(rf"([?&;][^?&;=\s]{{0,40}}?(?:{LOGIN})[^?&;=\s]{{0,40}}=)[^&;\s'\"]*", re.IGNORECASE)
_SECRET_KEY = re.compile(r"(?:.*_)?(?:password|passwd|pwd|secret|token)", re.IGNORECASE)
"""Pattern of configuration keys whose values are masked. Secrets belong in separate files, but a user may write a
password into the site file by mistake."""
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


LEGACY_TLS = 'stream.tls = "legacy" allows TLS 1.0 and SHA-1: others in the network may read or change the pictures'
"""Warning about a camera with ``stream.tls = "legacy"``."""


class StreamConfig(ConfigSection):
    """Settings of a network camera's stream. The camera's password is in a separate file, never in the site file."""

    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP. With ``udp``, the agent falls back to TCP if no packet arrives."""
    kind: Literal["auto", "snapshot", "mjpeg"] = "auto"
    """Kind of an HTTP source: ``snapshot`` is one picture per request, ``mjpeg`` is an endless response. ``auto``
    chooses the kind by the content type."""
    user: str = ""
    password_file: Path | None = None
    """A file whose first line is the password."""
    ca_file: Path | None = None
    """Trusted certificate authorities for ``rtsps`` and ``https``, as PEM; by default the authorities of the
    system."""
    verify: bool = True
    """Verify the camera's certificate. If false, any certificate of the camera is accepted, such as a self-signed
    certificate in a private network."""
    tls: Literal["modern", "legacy"] = "modern"
    """TLS versions for ``https``: ``legacy`` also allows TLS 1.0 and 1.1, SHA-1 and short keys.

    Attackers in the network may be able to read or change a legacy connection, so the agent logs a warning at each
    start.
    """
    own_clock: bool = True
    """If true, use the capture time in the stream if the stream contains one. If false, always use the host's
    clock."""
    max_skew_s: PositiveSeconds = 2.0
    """Largest accepted difference between the stream's clock and the host's clock. If the two clocks differ by more
    than this limit, the agent reports the difference and uses the host's clock."""
    existing: bool = False
    """For ``images:FOLDER``: at the first start, also read the pictures that already exist."""
    recursive: bool = False
    """For ``images:FOLDER``: also read the pictures of sub-folders."""
    memory_mb: int = Field(default=1024, ge=128)
    """Maximum memory of the decoder in MiB. A broken stream can make a decoder use ever more memory. If the decoder
    needs more than ``memory_mb``, the capture ends with an error."""

    @model_validator(mode="after")
    def _password_has_a_user(self) -> Self:
        if self.password_file and not self.user:
            raise ValueError("expected user as well, because password_file is set")
        return self


class WatchConfig(ConfigSection):
    """Times after which the agent reports bad pictures of a camera. If the time of a check is 0, the check is
    switched off."""

    stall_s: PositiveSeconds = 10.0
    """Time without a frame after which the agent reconnects to the camera."""
    frozen_s: Seconds = 60.0
    """Time in seconds with identical pictures after which the camera is reported as frozen. Even pictures of a still
    scene differ, because a camera's image sensor has noise."""
    black_s: Seconds = 10.0
    """Time in seconds with black pictures after which the camera is reported as black."""
    tampered_s: Seconds = 10.0
    """Time in seconds after which a camera that is covered, out of focus or turned away is reported as tampered
    with."""
    relearn_s: PositiveSeconds = 900.0
    """Time after which a changed but stable view becomes the camera's usual view."""


_ADDRESSES = ("rtsp://", "rtsps://", "http://", "https://")


class CameraConfig(ConfigEntry):
    """Configuration of a camera.

    ``source`` is an address (``rtsp``, ``rtsps``, ``http``, ``https``), ``device:N``, ``images:FOLDER``,
    ``simulated:SCENE`` or a video file's path.
    """

    KIND: ClassVar[str] = "camera"

    source: str
    site: str = ""
    place: Name | None = None
    """Place that the camera shares with other cameras and sensors, such as a junction or a hall. Events of one type
    at one place form one incident. Without a place, the camera's own events form its incidents."""
    fps: float = Field(default=10.0, gt=0.0)
    """Frames per second at which the agent plays files, scenes and images, or fetches snapshots. A capture device,
    ``device:N``, is set to this frame rate."""
    loop: bool = False
    """If true, a video file that ends is played again from its start."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    """Width and height of the frames in pixels; with 0, frames keep the size of the source. A simulated camera
    renders its pictures in the given width and height; with 0, it renders them in 640×360."""
    options: dict[str, str | int | float | bool] = {}
    """Options of a simulated scene: seed, light, rain, noise_sigma, density, frames."""
    stream: StreamConfig = StreamConfig()
    watch: WatchConfig = WatchConfig()
    gate: GateConfig = GateConfig()
    redact: RedactConfig = RedactConfig()
    encode: EncodeConfig = EncodeConfig()
    spool: SpoolConfig = SpoolConfig()
    ground: GroundConfig | None = None
    """Ground plane, which rules over speeds and distances need."""
    lens: LensConfig | None = None
    """Lens, which pipelines with the step ``distortion`` and the ground plane need if its distortion is visible."""

    @property
    def full_place(self) -> str:
        """Full name of the camera's place: ``site/place``, or the camera's own name without a place."""
        return place_key(self.name, self.site, self.place)

    @model_validator(mode="after")
    def _legacy_tls_is_for_https(self) -> Self:
        if self.stream.tls == "legacy" and not self.source.lower().startswith("https://"):
            raise ValueError('expected a source that begins with https://, because stream.tls = "legacy" is set')
        return self

    @model_validator(mode="after")
    def _pre_roll_is_live(self) -> Self:
        if self.gate.motion and 0.0 < self.spool.late_after_s <= self.gate.pre_roll_s:
            raise ValueError(
                "expected gate.pre_roll_s below spool.late_after_s, because a frame older than spool.late_after_s "
                "counts as late"
            )
        return self

    @model_validator(mode="after")
    def _lens_shows_the_ground(self) -> Self:
        if self.ground and self.lens:
            size = self.lens.width, self.lens.height
            lens = self.lens.lens(*size)
            if None in [lens.undistorted(corner) for corner in to_pixels(self.ground.corners, *size)]:
                raise ValueError("expected ground.corners less than 80° from the middle of the view of the lens")
        return self

    @field_validator("source")
    @classmethod
    def _has_no_password(cls, source: str) -> str:
        if has_secret(source):
            raise ValueError(
                "expected no password in the address: use stream.password_file, or write ${NAME} for the environment "
                "variable NAME"
            )
        if source.startswith(_ADDRESSES):
            require_port(source.partition("//")[2].partition("/")[0].partition("?")[0])
        return source


def mask_secrets(value: Any) -> Any:
    """Return a copy of a value in which the logins in URLs and the values of password-like keys are masked, including
    nested values."""
    if isinstance(value, str):
        return _PARAMETER.sub(r"\1…", _USERINFO.sub(r"\g<scheme>…@", value))
    if isinstance(value, dict):
        return {key: "…" if _SECRET_KEY.fullmatch(str(key)) else mask_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mask_secrets(inner) for inner in value)
    return value


def has_secret(source: str) -> bool:
    """Return whether an address contains a literal password. The placeholder ``${NAME}`` does not count as a
    password."""
    found = _USERINFO.match(source)
    return found is not None and bool(_VARIABLE.sub("", found["user"].partition(":")[2]))
