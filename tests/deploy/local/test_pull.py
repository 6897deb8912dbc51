"""Tests of the download of model files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from deploy.local.exceptions import PullFailed
from deploy.local.pull import pull

CONTENT = bytes(range(256)) * 40
HASH = hashlib.sha256(CONTENT).hexdigest()
URL = "https://models.test/path/cars.onnx?token=1"


def answer(request: httpx.Request) -> httpx.Response:
    path = request.url.path
    if path.startswith("/hop/"):
        return httpx.Response(302, headers={"location": f"/hop/{int(path[5:]) - 1}" if path[5:] != "0" else URL})
    if path == "/downgrade":
        return httpx.Response(301, headers={"location": "http://models.test/path/cars.onnx"})
    if path == "/choices":
        return httpx.Response(300)  # a redirect without an address
    if path == "/reset":
        raise httpx.ReadError("connection reset", request=request)
    return httpx.Response(200 if path == "/path/cars.onnx" else 404, content=CONTENT)


def pulled(folder: Path, url: str, sha256: str = HASH, max_bytes: int = 20_000) -> Path:
    return pull(url, sha256, folder, max_bytes, httpx.Client(transport=httpx.MockTransport(answer)))


def test_a_downloaded_model_file_is_stored_under_the_file_name_of_its_url(tmp_path: Path) -> None:
    path = pulled(tmp_path, URL, HASH.upper())
    assert (path.name, path.read_bytes()) == ("cars.onnx", CONTENT)
    assert pulled(tmp_path, "https://models.test/hop/2").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        (URL, {"sha256": "0" * 64}, f"SHA-256 {HASH}: expected {'0' * 64}"),
        (URL, {"max_bytes": 10_000}, "more than 10000 bytes: expected a smaller file. Raise --max-mb"),
        ("https://models.test/other", {}, "HTTP status 404: expected 200"),
        ("https://models.test/downgrade", {}, "http://models.test/path/cars.onnx: the address is not HTTPS"),
        ("https://models.test/hop/9", {}, "more than 5 redirects"),
        ("https://models.test/choices", {}, "HTTP status 300: expected 200"),
        ("https://models.test/reset", {}, "connection reset"),
        ("file:///etc/passwd", {}, "not HTTPS"),
        ("https://", {}, "not HTTPS"),
        ("https://models.test/a/..", {}, "HTTP status 404"),
        ("https://models.test/a%00b", {}, "HTTP status 404"),
    ],
)
def test_a_model_download_that_fails_leaves_no_file(
    tmp_path: Path, url: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PullFailed, match=message):
        pulled(tmp_path, url, **settings)
    assert list(tmp_path.iterdir()) == []
