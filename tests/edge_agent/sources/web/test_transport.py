"""Tests of connections to old cameras: TLS 1.0 with SHA-1, and faulty headers."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.exceptions import SourceUnusable
from edge_agent.sources.address import resolve
from edge_agent.sources.web.source import WebSource
from edge_agent.sources.web.transport import tidy
from ingest.exceptions import ConfigError
from ingest.runtime.clock import SystemClock
from ingest.site import LEGACY_TLS, StreamConfig, load
from tests.peers.certificates import Authority
from tests.peers.web import reply

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()


class Snapshots(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        reply(self, JPEG, "image/jpeg")

    def log_message(self, *_: object) -> None:
        pass


class QuietServer(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore a failed handshake."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def old_camera(authority: Authority) -> Iterator[str]:
    """Return the URL of a camera that speaks TLS 1.0 only. TLS 1.0 signs its key exchange with SHA-1."""
    signed = authority.sign("camera")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(signed.certificate, signed.key)
    server = QuietServer(("127.0.0.1", 0), Snapshots)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_camera_with_tls_1_0_is_refused_by_default_and_read_with_a_warning_if_tls_is_legacy(
    old_camera: str, authority: Authority
) -> None:
    notices: list[str] = []
    for tls in ("modern", "legacy"):
        config = StreamConfig.model_validate({"ca_file": authority.file, "tls": tls})
        source = WebSource(
            resolve(old_camera, config), config, 10, SystemClock(), stall_s=5.0, on_notice=notices.append
        )
        if tls == "modern":
            with pytest.raises(SourceUnusable, match=r"(?i)protocol|handshake"):
                source.open()
            assert notices == []
            continue
        source.open()
        assert source.read() is not None
        assert notices == [LEGACY_TLS]
        source.close()


def test_a_connection_with_the_legacy_tls_option_still_verifies_the_certificate(old_camera: str) -> None:
    config = StreamConfig(tls="legacy")
    source = WebSource(resolve(old_camera, config), config, 10, SystemClock(), stall_s=5.0)
    with pytest.raises(SourceUnusable, match="certificate verify failed"):
        source.open()


@pytest.mark.parametrize("source", ["http://cam/x", "rtsps://cam/x", "device:0"])
def test_the_legacy_tls_option_is_refused_for_a_source_other_than_https(source: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'[[cameras]]\nname = "a"\nsource = "{source}"\nstream.tls = "legacy"\n')
    with pytest.raises(ConfigError, match="expected a source that begins with https://"):
        load(file)


def test_faulty_lines_and_a_second_or_invalid_content_length_are_removed_from_an_http_header_block() -> None:
    given = (
        b"\r\nHTTP/1.1  200 OK \x01fine\njunk\r\nServer : old\x00cam\r\n Folded: no\r\nContent-Length: x\r\n"
        b"Content-Length: 5\r\nContent-Length: 6\r\nEmpty:"
    )
    wanted = b"HTTP/1.1 200 OK fine\r\nServer: oldcam\r\nContent-Length: 5\r\nEmpty: \r\n\r\n"
    assert tidy(given) == wanted


@given(st.binary(max_size=200))
def test_any_http_header_block_becomes_lines_with_an_empty_line_at_the_end(data: bytes) -> None:
    assert tidy(b"HTTP/1.1 200 OK\r\n" + data).endswith(b"\r\n\r\n")
    assert b"\r\n\r\n" not in tidy(b"HTTP/1.1 200 OK\r\n" + data)[:-4]
