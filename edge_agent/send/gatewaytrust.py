"""Authentication between agent and gateway: certificates and a token, from files."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from ingest.exceptions import ConfigError
from ingest.site import LinkConfig

_TOKEN = re.compile(r"[ -~]+")


def tls(config: LinkConfig) -> ssl.SSLContext:
    """Return the TLS context for a gateway, with the agent's own certificate if it has one. Raise ConfigError."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError("site file", "link.ca_file", str(config.ca_file), f"PEM certificates ({error})") from None
    if config.cert_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except (OSError, ValueError) as error:
            expected = f"a PEM certificate, with its key or link.key_file ({error})"
            raise ConfigError("site file", "link.cert_file", str(config.cert_file), expected) from None
    return context


class Token:
    """A bearer token in a file, read again when the file has changed: it can be replaced at run time."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def header(self) -> dict[str, str]:
        """Return the header with the token, no header without a file. Raise ConfigError."""
        if self._file is None:
            return {}
        try:
            found = self._file.stat()
            if (found.st_mtime_ns, found.st_ino) != self._seen:
                self._token = _read_token(self._file)
                self._seen = (found.st_mtime_ns, found.st_ino)
        except (OSError, ValueError) as error:
            expected = f"a text file with the token ({error})"
            raise ConfigError("site file", "link.token_file", str(self._file), expected) from None
        return {"Authorization": f"Bearer {self._token}"}


def _read_token(file: Path) -> str:
    """Return a file's token. Raise OSError, or a ValueError that does not quote the content."""
    try:
        token = file.read_text().strip()
    except UnicodeDecodeError:
        raise ValueError("it has characters outside ASCII") from None
    if not token or not _TOKEN.fullmatch(token):  # the error of the HTTP client would quote the token
        raise ValueError("expected one line of printable ASCII")
    return token
