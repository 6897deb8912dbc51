"""Frame source for HTTP cameras: one snapshot for each request, or one endless MJPEG response."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack

import httpx

from edge_agent.exceptions import SourceStalled, SourceUnusable
from edge_agent.sources.address import Address
from edge_agent.sources.multipart import Multipart, boundary_of
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.pictures import MAX_PICTURE_BYTES, PictureDecoder
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import Clock, Deadline
from ingest.site import StreamConfig

_MAX_REDIRECTS = 3
_MULTIPART = "multipart/"
_REQUEST_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)


class WebSource:
    """HTTP camera. The site file or the Content-Type of the first response selects snapshots or MJPEG."""

    def __init__(
        self,
        address: Address,
        stream: StreamConfig,
        fps: float,
        clock: Clock,
        *,
        stall_s: float,
        pace: FramePacer | None = None,
    ) -> None:
        self._address, self._config, self._clock, self._stall_s = address, stream, clock, stall_s
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
        """Send the first request, and choose snapshots or MJPEG by the response. Raise SourceUnusable."""
        self.close()
        self._stack = ExitStack()
        try:
            self._client = self._stack.enter_context(self._new_client())
            self._begin(self._stack)
        except _REQUEST_ERRORS as error:
            self.close()
            raise SourceUnusable(f"{self._address.shown}: {self._describe(error)}") from None
        self._good_s = self._clock.monotonic()

    def read(self) -> CapturedFrame | None:
        """Return the next picture, or None.

        Raise SourceStalled when the camera sends no picture for the stall time.
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
        verify: bool | ssl.SSLContext = self._config.verify
        if self._config.ca_file and self._config.verify:
            verify = ssl.create_default_context(cafile=str(self._config.ca_file))
        return httpx.Client(
            auth=_Login(self._address.user, self._address.password) if self._address.user else None,
            timeout=self._stall_s,
            verify=verify,
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            trust_env=False,  # a proxy from the environment is for the internet, not for a local camera
        )

    def _begin(self, stack: ExitStack) -> None:
        """Send the first request. Keep an MJPEG response open; otherwise read and keep the first snapshot."""
        response = stack.enter_context(self._client.stream("GET", self._address.url))
        response.raise_for_status()
        kind = response.headers.get("content-type", "")
        if self._config.kind == "mjpeg" or (self._config.kind == "auto" and kind.startswith(_MULTIPART)):
            self._parts = Multipart(boundary_of(kind), MAX_PICTURE_BYTES)
            self._chunks = response.iter_raw()
        else:
            self._ready.append(self._whole(response))
            response.close()

    def _snapshot(self) -> bytes | None:
        if not self._pace.ready():
            return None
        if self._ready:  # the first picture, received by open()
            return self._ready.popleft()
        try:
            with self._client.stream("GET", self._address.url) as response:
                response.raise_for_status()
                return self._whole(response)
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
                raise SourceStalled(f"{self._address.shown}: no complete picture for {self._stall_s:g} s")
        return self._ready.popleft()

    def _whole(self, response: httpx.Response) -> bytes:
        """Read a complete picture.

        Raise ValueError if the picture is too large or takes longer than the stall time.
        """
        data, deadline = bytearray(), Deadline.after(self._stall_s, self._clock)
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > MAX_PICTURE_BYTES:
                raise ValueError(f"the picture exceeds the limit of {MAX_PICTURE_BYTES} bytes")
            if deadline.passed:
                raise ValueError(f"no complete picture for {self._stall_s:g} s")
        return bytes(data)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            text = f"the camera answered {error.response.status_code} {error.response.reason_phrase}"
        elif isinstance(error, httpx.TimeoutException):
            text = "the camera does not respond"
        else:
            text = str(error) or type(error).__name__
        return self._address.hide(text)


class _Login(httpx.Auth):
    """HTTP authentication: Basic or Digest, whichever the camera requests.

    No credentials are sent before the camera requests them.

    Raise httpx.ProtocolError if the camera requests an unsupported algorithm, or the ``auth-int`` variant of Digest.
    """

    def __init__(self, user: str, password: str) -> None:
        self._digest, self._basic = httpx.DigestAuth(user, password), httpx.BasicAuth(user, password)
        self._chosen: httpx.Auth | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._chosen is None:
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            schemes = " ".join(response.headers.get_list("www-authenticate")).lower()
            self._chosen = self._digest if "digest" in schemes else self._basic
        try:
            yield from self._chosen.auth_flow(request)
        except (KeyError, NotImplementedError) as error:
            reason = f"the camera requests an unsupported kind of login: {error}"
            raise httpx.ProtocolError(reason) from None
