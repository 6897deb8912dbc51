"""Camera address with credentials.

Only the capture process of a camera inserts the credentials into the address. Messages never contain credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

from edge_agent.exceptions import SourceUnusable
from ingest.runtime.text import decode_text
from ingest.site import StreamConfig
from ingest.site.camera import LOGIN

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(rf"([^&;=]*(?:{LOGIN})[^&;=]*=)[^&;]*", re.IGNORECASE)
_MIN_MASKED_CHARS = 4
"""Minimum number of characters of a secret that is masked in messages. A shorter secret may also occur inside an
ordinary word, and masking a part of an ordinary word would reveal the secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a camera.

    ``shown`` is safe to log. The path and query of ``url`` may contain secrets, so ``url`` must not be logged.
    Neither ``shown`` nor ``url`` contains the user name. ``user`` and ``password`` are not percent-encoded.
    """

    shown: str
    url: str = field(repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values of the variables ``${NAME}`` in the address's path and query; messages must not contain these values."""

    @property
    def with_user(self) -> str:
        """The URL with percent-encoded user and password, in the form that FFmpeg expects."""
        if not self.user:
            return self.url
        parts = urlsplit(self.url)
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))

    def hide(self, text: str) -> str:
        """Return a library's message with password and secrets masked, whether percent-encoded or not."""
        text = text.replace(self.with_user, self.shown).replace(self.url, self.shown)
        for secret in sorted({self.password, *self.secrets}, key=len, reverse=True):
            for form in {secret, quote(secret, safe="")}:
                text = text.replace(form, "…") if len(form) >= _MIN_MASKED_CHARS else text
        return text


def resolve(source: str, stream: StreamConfig, environment: Mapping[str, str] = os.environ) -> Address:
    """Replace variables ``${NAME}`` in an address, and read the password file.

    Raise SourceUnusable if a variable or the password is missing, or if the address is invalid.
    """
    try:
        return _resolved(source, stream, environment)
    except ValueError:  # the error text may contain a part of a password
        raise SourceUnusable(
            "the address cannot be read: expected scheme://user:${NAME}@host:port/path, with a number for a port"
        ) from None


def _resolved(source: str, stream: StreamConfig, environment: Mapping[str, str]) -> Address:
    parts = urlsplit(source)
    login, _, place = parts.netloc.rpartition("@")
    parts = parts._replace(netloc=_filled(place, environment), fragment="")
    if not parts.hostname or parts.port == 0:
        raise ValueError
    rest = parts.path, parts.query
    path, query = (_filled(part, environment) for part in rest)
    url = urlunsplit(parts._replace(path=path, query=query))
    path, query = (_SECRET.sub(r"\1…", part) for part in rest)
    shown = urlunsplit(parts._replace(path=path, query=query))
    secrets = tuple(environment[name] for part in rest for name in _VARIABLE.findall(part))
    if stream.user:
        return Address(shown, url, stream.user, _password(stream), secrets)
    user, _, password = (_filled(part, environment) for part in login.partition(":"))
    return Address(shown, url, user, password, secrets)


def _filled(text: str, environment: Mapping[str, str]) -> str:
    missing = sorted({name for name in _VARIABLE.findall(text) if name not in environment})
    if missing:
        raise SourceUnusable(
            f"the address names the environment variables {', '.join(missing)}: expected them in the agent's "
            "environment"
        )
    return _VARIABLE.sub(lambda found: environment[found[1]], text)


def _password(stream: StreamConfig) -> str:
    if stream.password_file is None:
        return ""
    try:
        lines = decode_text(stream.password_file.read_bytes()).splitlines()
    except (OSError, ValueError) as error:
        raise SourceUnusable(f"password_file {stream.password_file} cannot be read: {error}") from None
    if not lines or not lines[0]:
        raise SourceUnusable(
            f"password_file {stream.password_file} is empty: expected the password in its first line"
        )
    return lines[0]
