"""Frame source for HTTP cameras, which send one snapshot for each request or one endless MJPEG response."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain

import httpx

from edge_agent.exceptions import SourceStalled, SourceUnusable
from edge_agent.sources.address import Address
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.pictures import MAX_PICTURE_BYTES, PictureDecoder
from edge_agent.sources.source import CapturedFrame
from edge_agent.sources.web.login import CameraLogin
from edge_agent.sources.web.multipart import Multipart, boundary_of
from edge_agent.sources.web.transport import CameraTransport
from ingest.runtime.clock import Clock, Deadline
from ingest.site import LEGACY_TLS, StreamConfig

_MAX_REDIRECTS = 3
_MULTIPART, _DASHES = "multipart/", b"--"
_MAX_SPACE_BYTES = 64
_REQUEST_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)


class WebSource:
    """HTTP camera.

    The site file sets whether the camera sends snapshots or MJPEG; for ``auto``, the first response decides.
    """

    def __init__(
        self,
        address: Address,
        stream: StreamConfig,
        fps: float,
        clock: Clock,
        *,
        stall_s: float,
        on_notice: Callable[[str], None] = lambda _: None,
        pace: FramePacer | None = None,
    ) -> None:
        self._address, self._config, self._clock, self._stall_s = address, stream, clock, stall_s
        self._on_notice = on_notice
        self._pace = pace or FramePacer(fps, clock)
        self._pictures = PictureDecoder()
        self._stack: ExitStack | None = None
        self._client = httpx.Client()
        self._chunks: Iterator[bytes] | None = None
        self._parts = Multipart(b"", MAX_PICTURE_BYTES)
        self._ready: deque[bytes] = deque()
        self._good_s = 0.0
        self._fault = ""

    def open(self) -> None:
        """Send the first request.

        The response shows whether the camera sends snapshots or MJPEG. Raise SourceUnusable.
        """
        self.close()
        if self._config.tls == "legacy":
            self._on_notice(LEGACY_TLS)
        self._stack = ExitStack()
        try:
            self._client = self._stack.enter_context(self._new_client())
            self._begin(self._stack)
        except _REQUEST_ERRORS as error:
            self.close()
            raise SourceUnusable(f"{self._address.shown}: {self._describe(error)}") from None
        self._good_s = self._clock.monotonic()

    def read(self) -> CapturedFrame | None:
        """Return the next picture, or None if no picture has arrived.

        Raise SourceStalled if the camera has sent no picture for ``stall_s`` seconds.
        """
        if self._stack is None:
            raise SourceUnusable(f"HTTP camera {self._address.shown} is not open")
        found = self._part() if self._chunks is not None else self._snapshot()
        if found is not None:
            self._good_s, self._fault = self._clock.monotonic(), ""
            return self._pictures.captured(found, self._clock.now_ns())
        if self._fault and self._clock.monotonic() - self._good_s > self._stall_s:
            raise SourceStalled(f"{self._address.shown}: {self._fault}")
        return None

    def close(self) -> None:
        """Close the connection."""
        self._ready.clear()
        self._chunks = None
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def _new_client(self) -> httpx.Client:
        return httpx.Client(
            transport=CameraTransport(self._config),
            auth=CameraLogin(self._address.user, self._address.password) if self._address.user else None,
            timeout=self._stall_s,
            headers={"Accept-Encoding": "identity"},  # a picture is compressed already
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            event_hooks={"request": [self._require_same_host]},
            trust_env=False,  # a proxy in the environment is meant for the internet, not for a local camera
        )

    def _require_same_host(self, request: httpx.Request) -> None:
        """Refuse a redirect to another host, and a redirect from HTTPS to HTTP.

        The network policy has checked only the host in the site file.
        """
        own, url = httpx.URL(self._address.url), request.url
        if url.host != own.host or (own.scheme == "https" and url.scheme != "https"):
            where = f"{url.scheme}://{url.host}"
            raise httpx.ProtocolError(
                f"the camera redirects to {where}: expected the same host as in source. "
                f"If you trust {where}, use it in source"
            )

    def _begin(self, stack: ExitStack) -> None:
        """Send the first request.

        If the camera sends MJPEG, keep the response open. If the camera sends snapshots, store the received picture
        for the first ``read``.
        """
        response = stack.enter_context(self._client.stream("GET", self._address.url))
        response.raise_for_status()
        chunks, content_type = response.iter_bytes(), response.headers.get("content-type", "")
        kind = self._config.kind
        if kind == "auto" and not content_type.lower().startswith(_MULTIPART):
            start = _start(chunks)
            kind, chunks = "mjpeg" if start.lstrip().startswith(_DASHES) else "snapshot", chain([start], chunks)
        if kind != "snapshot":
            self._parts = Multipart(boundary_of(content_type), MAX_PICTURE_BYTES)
            self._chunks = chunks
        else:
            self._ready.append(self._whole(chunks))
            response.close()

    def _snapshot(self) -> bytes | None:
        if not self._pace.ready():
            return None
        if self._ready:  # the first picture, received by open()
            return self._ready.popleft()
        try:
            with self._client.stream("GET", self._address.url) as response:
                response.raise_for_status()
                return self._whole(response.iter_bytes())
        except _REQUEST_ERRORS as error:
            self._fault = self._describe(error)
            return None

    def _part(self) -> bytes | None:
        assert self._chunks is not None  # noqa: S101  (narrowing: the caller checks it)
        while not self._ready:
            try:
                self._ready.extend(self._parts.feed(next(self._chunks)))
            except StopIteration:
                raise SourceStalled(f"{self._address.shown}: the camera ended the stream") from None
            except _REQUEST_ERRORS as error:
                raise SourceStalled(f"{self._address.shown}: {self._describe(error)}") from None
            if self._clock.monotonic() - self._good_s > self._stall_s:
                raise SourceStalled(
                    f"{self._address.shown}: the camera sent no complete picture for {self._stall_s:g} s"
                )
        return self._ready.popleft()

    def _whole(self, chunks: Iterator[bytes]) -> bytes:
        """Read a response body, which is one picture, to its end.

        Raise ValueError if the picture exceeds ``MAX_PICTURE_BYTES``, or if its transfer takes longer than
        ``stall_s``.
        """
        data, deadline = bytearray(), Deadline.after(self._stall_s, self._clock)
        for chunk in chunks:
            data += chunk
            if len(data) > MAX_PICTURE_BYTES:
                raise ValueError(f"the camera sent a picture of more than {MAX_PICTURE_BYTES} bytes")
            if deadline.passed:
                raise ValueError(f"the camera sent no complete picture for {self._stall_s:g} s")
        return bytes(data)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            text = f"the camera answered {error.response.status_code} {error.response.reason_phrase}"
        elif isinstance(error, httpx.TimeoutException):
            text = "the camera does not respond"
        else:
            text = str(error) or type(error).__name__
        return self._address.hide(text)


def _start(chunks: Iterator[bytes]) -> bytes:
    """Return enough first bytes of a response body to see whether the body begins with a boundary."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start.lstrip()) >= len(_DASHES) or len(start) > _MAX_SPACE_BYTES:
            break
    return start
