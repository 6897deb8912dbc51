"""Tests of HTTP cameras: requests, logins, and errors."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.exceptions import SourceStalled, SourceUnusable
from edge_agent.sources.address import resolve
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.web import source as web
from edge_agent.sources.web.source import WebSource
from ingest.runtime.clock import ManualClock, SystemClock
from ingest.site import StreamConfig
from tests.peers.web import Answer, WebCamera, mjpeg, picture, reply

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
Serve = Callable[..., WebCamera]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(answer: Answer, **options: object) -> WebCamera:
            camera = WebCamera({"/": answer}, **options)  # type: ignore[arg-type]
            stack.callback(camera.stop)
            return camera

        yield start


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def read(clock: ManualClock) -> Iterator[Callable[..., WebSource]]:
    with ExitStack() as stack:

        def make(camera: WebCamera, config: StreamConfig | None = None, stall_s: float = 5.0) -> WebSource:
            config = config or StreamConfig()
            pace = FramePacer(10, clock, wait=clock.advance)
            source = WebSource(resolve(camera.url("/"), config), config, 10, clock, stall_s=stall_s, pace=pace)
            stack.callback(source.close)
            return source

        yield make


Read = Callable[..., WebSource]


def head(content_type: str, more: str = "") -> bytes:
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.0 200 OK\r\n{kind}{more}\r\n".encode()


def part(body: bytes) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + body + b"\r\n"


def raw(data: bytes) -> Answer:
    """Return an answer that sends the given bytes and then disconnects."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return send


def exhaust(source: WebSource) -> None:
    for _ in range(1000):
        source.read()


@pytest.mark.parametrize("digest", [False, True])
def test_an_http_login_uses_the_scheme_that_the_camera_requests(
    digest: bool, serve: Serve, read: Read, tmp_path: Path
) -> None:
    camera = serve(picture(JPEG), login="ad min:p@ss/:word", digest=digest)
    file = tmp_path / "password"
    file.write_text("p@ss/:word\n")
    source = read(camera, StreamConfig(user="ad min", password_file=file))
    source.open()
    pictures = [source.read() for _ in range(3)]
    assert all(pictures)
    before = len(camera.asked)
    assert source.read() is not None
    assert len(camera.asked) == before + 1  # only the first request is refused; later ones send the login at once


def test_a_wrong_camera_password_is_reported_without_the_password(serve: Serve, read: Read, tmp_path: Path) -> None:
    camera = serve(picture(JPEG), login="admin:right")
    (tmp_path / "password").write_text("hunter2")
    with pytest.raises(SourceUnusable, match="answered 401") as caught:
        read(camera, StreamConfig(user="admin", password_file=tmp_path / "password")).open()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("lengths", [True, False])
def test_an_mjpeg_camera_is_recognised_by_the_content_type(lengths: bool, serve: Serve, read: Read) -> None:
    source = read(serve(mjpeg([JPEG] * 4, lengths=lengths, boundary="--my boundary")))
    source.open()
    assert [source.read().image.shape for _ in range(3)] == [(48, 64, 3)] * 3  # type: ignore[union-attr]


def test_the_site_file_can_choose_snapshots_or_mjpeg(serve: Serve, read: Read) -> None:
    source = read(serve(picture(JPEG, "application/octet-stream")), StreamConfig(kind="snapshot"))
    source.open()
    assert source.read() is not None


def test_failed_snapshots_of_an_http_camera_are_retried(serve: Serve, read: Read, clock: ManualClock) -> None:
    asked = []

    def moody(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, JPEG, "image/jpeg", 503 if len(asked) % 3 == 2 else 200)

    source = read(serve(moody))
    source.open()
    found = [source.read() for _ in range(30)]
    assert sum(captured is None for captured in found) == 10


def test_an_http_camera_that_keeps_failing_counts_as_stalled_with_the_reason(
    serve: Serve, read: Read, clock: ManualClock
) -> None:
    asked = []

    def dead(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, JPEG, "image/jpeg", 200 if len(asked) == 1 else 503)

    source = read(serve(dead))
    source.open()
    started_s = clock.monotonic()
    with pytest.raises(SourceStalled, match="answered 503"):
        exhaust(source)
    assert 5 <= clock.monotonic() - started_s <= 6


def test_an_oversized_http_picture_is_refused(serve: Serve, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_PICTURE_BYTES", 1000)
    with pytest.raises(SourceUnusable, match="more than 1000 bytes"):
        read(serve(picture(b"x" * 100_000))).open()
    source = read(serve(mjpeg([b"x" * 2000])))
    source.open()
    with pytest.raises(SourceStalled, match="2000 bytes: expected at most 1000"):
        source.read()


def test_an_http_response_that_stops_halfway_makes_the_camera_stalled(serve: Serve) -> None:
    def hangs(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        handler.wfile.write(b"--frame\r\n\r\n")
        handler.rfile.read(1)  # until the client disconnects

    camera = serve(hangs)
    source = WebSource(resolve(camera.url("/"), StreamConfig()), StreamConfig(), 10, SystemClock(), stall_s=0.3)
    source.open()
    with pytest.raises(SourceStalled, match="does not respond"):
        source.read()
    source.close()


def test_an_http_picture_that_arrives_too_slowly_is_refused_after_the_stall_time(
    serve: Serve, read: Read, clock: ManualClock
) -> None:
    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Content-Length", str(2**31))
        handler.end_headers()
        with suppress(OSError):  # until the client disconnects
            while True:
                clock.advance(1)
                handler.wfile.write(b"x")

    with pytest.raises(SourceUnusable, match="no complete picture for 5 s"):
        read(serve(drips)).open()


@pytest.mark.parametrize(
    ("kind", "reported"),
    [('algorithm="MD9", qop="auth"', 'digest algorithm="MD9"'), ('qop="auth-int"', 'digest qop="auth-int"')],
)
def test_an_unsupported_kind_of_http_login_is_reported(
    kind: str, reported: str, serve: Serve, read: Read, tmp_path: Path
) -> None:
    asks = ("WWW-Authenticate", f'Digest realm="cam", nonce="abc", {kind}')
    (tmp_path / "password").write_text("hunter2")
    camera = serve(lambda handler: reply(handler, b"", "text/plain", 401, asks))
    with pytest.raises(SourceUnusable, match=f"unsupported kind of login: {reported}"):
        read(camera, StreamConfig(user="admin", password_file=tmp_path / "password")).open()


def test_a_proxy_in_the_environment_is_not_used_for_cameras(
    serve: Serve, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    source = read(serve(picture(JPEG)))
    source.open()
    assert source.read() is not None


OLD = 'Digest realm="cam", nonce="abc", qop="auth"'
NEW = 'Digest realm="cam", nonce="def", qop="auth", algorithm=SHA-512-256'


@pytest.mark.parametrize(
    ("offers", "digest"),
    [
        ([NEW, OLD], True),
        ([f"{NEW}, {OLD}"], True),
        ([f'Basic realm="cam", {OLD}'], True),
        (['Basic realm="my digest camera"'], False),
        ([NEW, 'Basic realm="cam"'], False),
        (["Negotiate", "Digest Realm=cam , NONCE=abc, qop=auth,Basic realm=x"], True),
    ],
)
def test_the_first_login_scheme_that_the_agent_supports_is_used(
    offers: list[str], digest: bool, serve: Serve, read: Read, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("hunter2")
    camera = serve(picture(JPEG), login="admin:hunter2", digest=digest, offers=offers)
    source = read(camera, StreamConfig(user="admin", password_file=tmp_path / "password"))
    source.open()
    assert source.read() is not None


@pytest.mark.parametrize(
    "content_type",
    ["Multipart/X-Mixed-Replace; Boundary=frame", "", "image/jpeg", "text/plain"],
    ids=["capitals", "none", "wrong", "text"],
)
def test_mjpeg_is_recognised_by_a_content_type_in_capitals_or_by_the_first_boundary_in_the_body(
    content_type: str, serve: Serve, read: Read
) -> None:
    source = read(serve(raw(head(content_type) + part(JPEG) * 3)))
    source.open()
    assert [source.read().image.shape for _ in range(3)] == [(48, 64, 3)] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "junk",
    [
        b"a line without a colon\r\n",
        b"Server : with a space\r\n",
        b"X-\xe9\xff(): bytes\r\n",
        b"X-Control: a\x00b\x07c\r\n",
        b" folded before any header\r\n",
        b"Content-Length: -1\r\n",
        b": no name\r\n",
    ],
)
def test_faulty_header_lines_of_an_http_response_are_skipped(junk: bytes, serve: Serve, read: Read) -> None:
    first, rest = head("multipart/x-mixed-replace; boundary=frame").split(b"\r\n", 1)
    for faulty in (first + b"\r\n" + junk + rest, first + b"\r\n" + rest[:-2] + junk + b"\r\n"):
        source = read(serve(raw(faulty + part(JPEG) * 2)))
        source.open()
        assert source.read() is not None


def test_snapshots_with_faulty_http_headers_share_a_connection(serve: Serve, read: Read) -> None:
    answer = b"HTTP/1.1  200\r\njunk\r\nContent-Length: %d\r\nContent-Length: 7\r\n\r\n" % len(JPEG)

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" + answer + JPEG)

    source = read(serve(send))
    source.open()
    assert [source.read().image.shape for _ in range(3)] == [(48, 64, 3)] * 3  # type: ignore[union-attr]


def test_the_agent_requests_no_compressed_response_but_decodes_one(serve: Serve, read: Read) -> None:
    asked = []

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["accept-encoding"])
        kind = head("multipart/x-mixed-replace; boundary=frame", "Content-Encoding: gzip\r\n")
        raw(kind + gzip.compress(part(JPEG) * 3))(handler)

    source = read(serve(send))
    source.open()
    assert [source.read().image.shape for _ in range(3)] == [(48, 64, 3)] * 3  # type: ignore[union-attr]
    assert asked == ["identity"]


def test_an_mjpeg_picture_is_returned_before_the_next_picture_arrives(serve: Serve) -> None:
    def sends_one(handler: BaseHTTPRequestHandler) -> None:
        raw(head("multipart/x-mixed-replace; boundary=frame") + part(JPEG)[:-2])(handler)
        handler.rfile.read(1)  # until the client disconnects

    camera = serve(sends_one)
    source = WebSource(resolve(camera.url("/"), StreamConfig()), StreamConfig(), 10, SystemClock(), stall_s=30.0)
    source.open()
    assert source.read() is not None
    source.close()


def redirect(target: str) -> Answer:
    return lambda handler: reply(handler, b"", "text/plain", 302, ("Location", target))


def test_a_redirect_of_a_camera_to_another_host_is_refused_before_any_request(serve: Serve, read: Read) -> None:
    other = serve(picture(JPEG))
    camera = serve(redirect(other.url("/").replace("127.0.0.1", "localhost")))
    with pytest.raises(SourceUnusable, match="redirects to http://localhost: expected the same host as in source"):
        read(camera).open()
    assert other.asked == []


def test_a_redirect_of_a_camera_on_the_same_host_is_followed(serve: Serve, read: Read) -> None:
    source = read(serve(redirect(serve(picture(JPEG)).url("/"))))
    source.open()
    assert source.read() is not None
