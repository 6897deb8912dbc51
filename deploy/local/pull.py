"""Download a model file over HTTPS, limit its size, and check its SHA-256."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import httpx

from deploy.local.exceptions import PullFailed

_MAX_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(30.0)
"""Time limit for connecting, and for each read from the connection, in seconds."""
_CHUNK_BYTES = 1024 * 1024


def pull(url: str, sha256: str, folder: Path, max_bytes: int, client: httpx.Client | None = None) -> Path:
    """Download a model file into the folder ``folder``, and return the path of the file.

    If the download fails, delete the partial file and raise PullFailed. The URL and all redirect targets must be
    HTTPS addresses.
    """
    path = folder / (re.sub(r"[^\w.-]", "-", Path(unquote(urlsplit(url).path)).name).strip(".") or "model.onnx")
    try:
        with client or httpx.Client(timeout=_TIMEOUT) as session, path.open("wb") as file:
            found = _download(session, url, file, max_bytes)
        if found != sha256.lower():
            raise PullFailed(url, f"the file has the SHA-256 {found}", sha256.lower())
    except (httpx.HTTPError, httpx.InvalidURL, PullFailed) as error:
        path.unlink(missing_ok=True)
        if isinstance(error, PullFailed):
            raise
        raise PullFailed(url, str(error) or type(error).__name__, "a file that can be downloaded") from None
    return path


def _download(client: httpx.Client, url: str, file: IO[bytes], max_bytes: int) -> str:
    """Download the content at a URL into a file, and return the SHA-256 of the content."""
    for _ in range(_MAX_REDIRECTS + 1):
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise PullFailed(url, "the address is not HTTPS", "an address that begins with https://")
        with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            if not response.has_redirect_location:
                return _received(url, response, file, max_bytes)
            url = str(response.url.join(response.headers["location"]))
    raise PullFailed(
        url, f"the server answered with more than {_MAX_REDIRECTS} redirects", "an address that leads to the file"
    )


def _received(url: str, response: httpx.Response, file: IO[bytes], max_bytes: int) -> str:
    if response.status_code != httpx.codes.OK:
        raise PullFailed(url, f"the server answered with the HTTP status {response.status_code}", "200")
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_bytes(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise PullFailed(
                url, f"the file has more than {max_bytes} bytes", "a smaller file. Raise --max-mb for a large model"
            )
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()
