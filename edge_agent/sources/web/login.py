"""HTTP authentication of cameras: Basic or Digest (RFC 7617, RFC 7616), whichever the camera requests."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import NamedTuple

import httpx

_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^",])+')
"""Pattern of one element in a comma-separated list. A comma inside a quoted string does not end an element."""
_PARAMETER = re.compile(r'\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s"=]+)\s*')
_SCHEME = re.compile(r"\s*([A-Za-z][\w-]*)(?:\s+|$)")
_ALGORITHMS = frozenset(f"{name}{kind}" for name in ("MD5", "SHA", "SHA-256", "SHA-512") for kind in ("", "-SESS"))


class Challenge(NamedTuple):
    """Authentication method that a camera offers: the scheme and the parameters by name.

    All names are in lower case.
    """

    scheme: str
    parameters: dict[str, str]

    @property
    def is_supported_digest(self) -> bool:
        """Whether the challenge is a Digest challenge that httpx can answer."""
        algorithm, qop = (self.parameters.get(name, "").strip('"') for name in ("algorithm", "qop"))
        known = {"realm", "nonce"} <= self.parameters.keys() and (algorithm or "MD5").upper() in _ALGORITHMS
        return self.scheme == "digest" and known and (not qop or "auth" in re.split(", ?", qop))

    @property
    def header(self) -> str:
        """The challenge in the form of a WWW-Authenticate header's value."""
        return f"{self.scheme} " + ", ".join(f"{name}={value}" for name, value in self.parameters.items())

    def __str__(self) -> str:
        shown = (f"{name}={self.parameters[name]}" for name in ("algorithm", "qop") if name in self.parameters)
        return " ".join((self.scheme, *shown))


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Parse WWW-Authenticate headers.

    A header may contain several challenges, and quoted strings with any content.
    """
    found: list[Challenge] = []
    for header in headers:
        for item in _ITEM.findall(header):
            if not (parameter := _PARAMETER.fullmatch(item)):
                scheme = _SCHEME.match(item)
                if not scheme:
                    continue
                found.append(Challenge(scheme[1].lower(), {}))
                parameter = _PARAMETER.fullmatch(item, scheme.end())
            if parameter and found:
                found[-1].parameters[parameter[1].lower()] = parameter[2]
    return found


class CameraLogin(httpx.Auth):
    """Login to a camera with the first supported Digest challenge, or with Basic if no Digest challenge is supported.

    No credentials are sent before the camera requests them. Raise httpx.ProtocolError if the camera offers only
    unsupported methods, such as the ``auth-int`` variant of Digest.
    """

    def __init__(self, user: str, password: str) -> None:
        self._digest, self._basic = httpx.DigestAuth(user, password), httpx.BasicAuth(user, password)
        self._chosen: httpx.Auth = self._digest

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        flow = self._chosen.auth_flow(request)
        request = next(flow)
        while True:
            response = yield request
            if response.status_code == httpx.codes.UNAUTHORIZED and self._chosen is self._digest:
                self._chosen = self._choice(response)
                if self._chosen is not self._digest:
                    yield from self._chosen.auth_flow(request)
                    return
            try:
                request = flow.send(response)
            except StopIteration:
                return

    def _choice(self, response: httpx.Response) -> httpx.Auth:
        """Choose the challenge to answer, and remove all other challenges from the response.

        If the response kept several challenges, httpx would answer the first Digest challenge, even an unsupported
        challenge.
        """
        offered = challenges(response.headers.get_list("www-authenticate"))
        for challenge in offered:
            if challenge.is_supported_digest:
                response.headers["www-authenticate"] = challenge.header
                return self._digest
        if any(challenge.scheme == "basic" for challenge in offered):
            return self._basic
        if offered:
            raise httpx.ProtocolError(f"the camera requests an unsupported kind of login: {offered[0]}")
        return self._digest
