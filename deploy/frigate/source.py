"""Addresses and logins of the cameras of a Frigate configuration."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from deploy.frigate.section import FrigateSection

_ADDRESSES = ("rtsp://", "rtsps://", "http://", "https://")
_VARIABLE = re.compile(r"\{(FRIGATE_[A-Za-z0-9_]+)\}")
"""Placeholder of an environment variable in a Frigate configuration."""
_RESTREAM = re.compile(r"rtsp://(?:127\.0\.0\.1|localhost):8554/([^?/#]+)")
"""Address of a stream that Frigate's own go2rtc server repeats."""

_LOGIN = re.compile(r"(\w+://[\w-]+:)(\S+)(@[^@]*)")
"""An address with a login. As in Frigate, the password may contain any character, and ends at the last ``@``."""


class CameraSource(NamedTuple):
    """Source of a camera's frames. ``user`` and ``password`` are a literal login; empty without one."""

    address: str
    user: str
    password: str


def detect_input(camera: FrigateSection) -> FrigateSection:
    """Return the input of a camera in which Frigate detects objects. Raise ConfigError if the camera has no input."""
    inputs = camera.section("ffmpeg").value("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, dict) for one in inputs):
        raise camera.section("ffmpeg").error("inputs", inputs, "a list with at least one input")
    path = (*camera.path, "ffmpeg", "inputs")
    sections = [FrigateSection({str(key): value for key, value in one.items()}, path, set()) for one in inputs]
    return next((one for one in sections if "detect" in one.texts("roles")), sections[0])


def source_of(given: FrigateSection, streams: FrigateSection) -> CameraSource | None:
    """Return the source of an input, or None if Sightline cannot read it.

    An address of go2rtc, which Frigate contains, is replaced by the stream's own address in ``streams``. Raise
    ConfigError for a malformed address.
    """
    path = str(given.value("path", ""))
    if (found := _RESTREAM.match(path)) is not None:
        path = _stream(streams.value(found[1], "")) or path
    path = _VARIABLE.sub(r"${\1}", path)
    if path.startswith("/dev/video") and path[10:].isdecimal():
        return CameraSource(f"device:{path[10:]}", "", "")
    if not path.lower().startswith(_ADDRESSES):
        return CameraSource(path, "", "") if path.startswith("/") else None
    if (found := _LOGIN.fullmatch(path)) is not None:
        path = f"{found[1]}{quote(found[2], safe='%${}')}{found[3]}"
    try:
        parts = urlsplit(path)
    except ValueError as error:
        hidden = "(not shown, because it may have a password)"
        raise given.error("path", hidden, f"a valid URL of a stream ({error})") from None
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if not password or re.fullmatch(r"(\$\{\w+\})+", password):
        return CameraSource(path, "", "")
    return CameraSource(urlunsplit(parts._replace(netloc=host)), unquote(user), unquote(password))


def _stream(value: Any) -> str:
    """Return the first address of a go2rtc stream, without go2rtc's own prefix and options."""
    texts = [str(text).removeprefix("ffmpeg:") for text in (value if isinstance(value, list) else [value])]
    return next((text.partition("#")[0] for text in texts if text.lower().startswith(_ADDRESSES)), "")
