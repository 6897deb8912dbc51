"""Complete validation of web addresses, so that `sightline config check` refuses a wrong address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

LAST_PORT = 65_535
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
"""Pattern of one label of a host name (RFC 1123). Underscores are also allowed, because host names in container
networks contain underscores."""
_MAX_HOST_CHARS = 253


def checked_url(url: str, schemes: Collection[str] = ("http", "https"), *, login: bool = False) -> str:
    """Validate a web address, and return the address unchanged. If the address is invalid, raise ValueError with the
    reason.

    If ``login`` is true, the address may have a user and password before the host.
    """
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise ValueError(
            f"expected an address {wanted}host[:port][/path] without spaces, control characters or backslashes"
        )
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username or parts.password
    except ValueError as error:
        raise ValueError(f"expected an address {wanted}host[:port][/path] ({error})") from None
    if parts.scheme not in schemes or not host:
        raise ValueError(f"expected an address {wanted}host[:port][/path]")
    if user is not None and not login:
        raise ValueError(
            "expected an address without a user or password, because every service can read the config topic"
        )
    _require_host(host)
    require_port(parts.netloc)
    if parts.fragment:
        raise ValueError("expected an address without a fragment (#…)")
    return url


def _require_host(host: str) -> None:
    if ":" in host:
        ipaddress.IPv6Address(host.partition("%")[0])  # its ValueError says what is wrong
        return
    if re.fullmatch(r"[0-9.]+", host):
        ipaddress.IPv4Address(host)
        return
    try:
        name = host.encode("idna").decode("ascii").removesuffix(".")
    except UnicodeError as error:
        raise ValueError(f"expected a valid host name ({error})") from None
    if len(name) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError("expected a valid host name: letters, digits and hyphens between dots")


def require_port(netloc: str) -> None:
    """Raise ValueError unless the port is a number from 1 to 65535 in ASCII digits.

    Python's ``urlsplit`` also accepts a port in digits of another script, such as ``:٣``.

    ``netloc`` may have a login before the host.
    """
    netloc = netloc.rpartition("@")[2]
    port = re.search(r":([^\]:]*)$", netloc)
    if port and not (re.fullmatch(r"[0-9]{1,5}", port[1], re.ASCII) and 1 <= int(port[1]) <= LAST_PORT):
        raise ValueError(f"expected a port from 1 to {LAST_PORT}")
