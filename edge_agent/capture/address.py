"""A camera's address with what lets one in: put together in the capture child, and shown to nobody."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

from edge_agent.exceptions import SourceUnusable
from ingest.site import StreamConfig

__all__ = ["Address", "resolve"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_TELLING = 4
"""A shorter password is in many a word, and a text full of holes tells what it is."""


@dataclass(frozen=True, slots=True)
class Address:
    """``url`` has no user in it and may be shown; ``user`` and ``password`` are as they are, not quoted."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def with_user(self) -> str:
        """The URL as FFmpeg wants it, with user and password quoted."""
        if not self.user:
            return self.url
        parts = urlsplit(self.url)
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))

    def hide(self, text: str) -> str:
        """Return a text without the user and the password, quoted or not, that it may have got from a library."""
        text = text.replace(self.with_user, self.url)
        for secret in {self.password, quote(self.password, safe="")}:
            text = text.replace(secret, "…") if len(secret) >= _TELLING else text
        return text


def resolve(source: str, stream: StreamConfig, environment: Mapping[str, str] = os.environ) -> Address:
    """Fill in ``${NAME}`` and the password. Raise SourceUnusable when one is not there, or the address is none."""
    try:
        parts = urlsplit(source)
        login, _, place = parts.netloc.rpartition("@")
        url = urlunsplit(parts._replace(netloc=_filled(place, environment), path=_filled(parts.path, environment)))
        user, _, password = (_filled(part, environment) for part in login.partition(":"))
        if not urlsplit(url).hostname:
            raise ValueError("it names no host")
        _ = urlsplit(url).port
    except ValueError as error:
        raise SourceUnusable(f"the address cannot be read: {error}") from None
    if stream.user:
        return Address(url, stream.user, _password(stream))
    return Address(url, user, password)


def _filled(text: str, environment: Mapping[str, str]) -> str:
    missing = sorted({name for name in _VARIABLE.findall(text) if name not in environment})
    if missing:
        raise SourceUnusable(f"the address needs {', '.join(missing)} in the environment of the agent")
    return _VARIABLE.sub(lambda found: environment[found[1]], text)


def _password(stream: StreamConfig) -> str:
    if stream.password_file is None:
        return ""
    try:
        lines = stream.password_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnusable(f"password_file {stream.password_file}: {error}") from None
    return lines[0] if lines else ""
