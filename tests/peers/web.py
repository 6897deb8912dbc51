"""HTTP camera for tests: snapshots and MJPEG, optionally with Basic or Digest login."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import parse_http_list, parse_keqv_list

Answer = Callable[[BaseHTTPRequestHandler], None]


class WebCamera:
    """HTTP camera with one answer for each path. ``asked`` lists the requested paths in order."""

    def __init__(
        self, answers: dict[str, Answer], *, login: str = "", digest: bool = False, offers: Sequence[str] = ()
    ) -> None:
        self.asked: list[str] = []
        self._answers, self._login, self._digest = answers, login, digest
        self._offers = offers or ['Digest realm="cam", nonce="abc", qop="auth"' if digest else 'Basic realm="cam"']
        self._stopped = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer._stopped:
                    self.close_connection = True
                    return
                if outer._login and not outer._is_authorised(self.headers.get("authorization", "")):
                    offers = (("WWW-Authenticate", offer) for offer in outer._offers)
                    reply(self, b"", "text/plain", 401, *offers)
                elif self.path in outer._answers:
                    outer._answers[self.path](self)
                else:
                    reply(self, b"", "text/plain", 404)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def stop(self) -> None:
        """Stop listening and answering. A response in progress continues."""
        self._stopped = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _is_authorised(self, given: str) -> bool:
        if not self._digest:
            return given == "Basic " + b64encode(self._login.encode()).decode()
        said = parse_keqv_list(parse_http_list(given.removeprefix("Digest ")))
        user, _, password = self._login.partition(":")
        first = _md5(f"{user}:cam:{password}")
        second = _md5(f"GET:{said.get('uri')}")
        middle = ":".join(said.get(name, "") for name in ("nonce", "nc", "cnonce", "qop"))
        return said.get("response") == _md5(f"{first}:{middle}:{second}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324  (required by Digest, RFC 7616)


def reply(
    handler: BaseHTTPRequestHandler, body: bytes, kind: str, status: int = 200, *headers: tuple[str, str]
) -> None:
    """Send a complete response."""
    handler.send_response(status)
    for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def picture(body: bytes, kind: str = "image/jpeg") -> Answer:
    """Return an answer of one picture."""
    return lambda handler: reply(handler, body, kind)


def mjpeg(bodies: Sequence[bytes], *, boundary: str = "frame", lengths: bool = True) -> Answer:
    """Return an answer of MJPEG parts, after which the server disconnects."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={boundary}")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for body in bodies:
            length = f"Content-Length: {len(body)}\r\n" if lengths else ""
            head = f"--{boundary.lstrip('-')}\r\nContent-Type: image/jpeg\r\n{length}\r\n"
            handler.wfile.write(head.encode() + body + b"\r\n")
        handler.close_connection = True

    return send
