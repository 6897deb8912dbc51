"""How a camera is reached and watched: what a stream needs beside its address, and what a bad view is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, Seconds

_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s/?#@]*)@", re.IGNORECASE)
"""A scheme has an end: without one, looking through a long word takes time by the square of its length."""
LOGIN = "pass|pwd|psw|secret|token|key|auth|user|usr|login"
"""What a camera calls a login in its path or query has one of these in it."""
_PARAMETER = re.compile(rf"([?&;][^?&;=\s]{{0,40}}?(?:{LOGIN})[^?&;=\s]{{0,40}}=)[^&;\s'\"]*", re.IGNORECASE)
_SECRET_KEY = re.compile(r"(?:.*_)?(?:password|passwd|pwd|secret|token)", re.IGNORECASE)
"""Of a setting, as somebody may write it who does not know that secrets are in files."""
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


class StreamConfig(ConfigSection):
    """How a camera on the network is reached. The password is in a file beside the site file, never in it."""

    transport: Literal["tcp", "udp"] = "tcp"
    """Of RTSP. With ``udp``, TCP is used all the same where no packet comes."""
    kind: Literal["auto", "snapshot", "mjpeg"] = "auto"
    """Of HTTP: a picture for each question, or one answer that never ends; ``auto`` goes by its type."""
    user: str = ""
    password_file: Path | None = None
    """Its first line is the password."""
    ca_file: Path | None = None
    """Whom to trust with ``rtsps`` and ``https``, as PEM; the system's authorities if not given."""
    verify: bool = True
    """False takes any certificate: for a camera that made its own, on a network of your own."""
    own_clock: bool = True
    """Take the time from the stream where it has one; False keeps to the host's clock."""
    max_skew_s: float = Field(default=2.0, gt=0.0)
    """A stream's clock that differs from the host's by more than this is told, and not used."""
    existing: bool = False
    """Of ``images:FOLDER``: read also what is there at the very first start."""
    memory_mb: int = Field(default=1024, ge=128)
    """What the decoder may allocate, in MiB, before the capture ends and says so: a bound for broken streams."""

    @model_validator(mode="after")
    def _password_has_a_user(self) -> Self:
        if self.password_file and not self.user:
            raise ValueError("password_file without user: expected both")
        return self


class WatchConfig(ConfigSection):
    """When a view is a bad one. A time of 0 switches that watch off."""

    stall_s: float = Field(default=10.0, gt=0.0)
    """No frame for so long: the camera is tried again."""
    frozen_s: Seconds = 60.0
    """The very same picture for so long. A still scene is never the very same: its sensor is noisy."""
    black_s: Seconds = 10.0
    tampered_s: Seconds = 10.0
    """Covered, out of focus or turned away for so long."""
    relearn_s: float = Field(default=900.0, gt=0.0)
    """A view that has stayed the same for so long is the camera's view from then on."""


def mask_secrets(value: Any) -> Any:
    """Return a text, or whatever holds texts, without the logins of its addresses and what is called a password."""
    if isinstance(value, str):
        return _PARAMETER.sub(r"\1…", _USERINFO.sub(r"\g<scheme>…@", value))
    if isinstance(value, dict):
        return {key: "…" if _SECRET_KEY.fullmatch(str(key)) else mask_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mask_secrets(inner) for inner in value)
    return value


def has_secret(source: str) -> bool:
    """Tell whether an address has a password in it that is written out, and not ``${NAME}``."""
    found = _USERINFO.match(source)
    return found is not None and bool(_VARIABLE.sub("", found["user"].partition(":")[2]))
