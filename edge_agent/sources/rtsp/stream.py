"""RTSP cameras, through PyAV: H.264, H.265, MJPEG or whatever else FFmpeg decodes; TCP, UDP or TLS."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edge_agent.exceptions import SourceError, SourceStalled, SourceUnusable
from edge_agent.sources.address import Address
from edge_agent.sources.decode import LOST, Decoder, open_video, why
from edge_agent.sources.picture import failing, unusable
from edge_agent.sources.rtsp.clock import StreamClock
from edge_agent.sources.rtsp.damage import Damage
from edge_agent.sources.rtsp.reports import SenderReports
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import Clock
from ingest.site import StreamConfig

UDP_S = 4.0
"""A camera that sends by UDP at all has sent by then; a wall in between eats packets and says nothing."""
_OPTIONS = {
    "allowed_media_types": "video",  # sound is not asked for: it would cost bandwidth, and nobody listens
    "fpsprobesize": "0",  # the rate is not ours to guess: a guess holds the first frames back for two seconds
    "analyzeduration": "2000000",  # in µs
    "max_delay": "300000",  # in µs, for a packet that others overtook: more than the jitter of a bad mobile link
    "buffer_size": "1048576",  # bytes; a burst as large as a key frame must not overflow the socket
}
_WAITING = {"udp": "512", "tcp": "8"}
"""How many packets wait for one before them. By UDP, 20 Mbit/s for as long as is waited. By TCP, one that is missing
was dropped by the camera, or by a relay that may have put some out of order; FFmpeg does not look at the time there,
and a slow stream would stand still for half a minute until as many wait. With none, no loss would be heard."""


class StreamSource:
    """One RTSP stream. ``said`` hears, in a few words, what an operator should know and what is no failure."""

    def __init__(
        self,
        address: Address,
        stream: StreamConfig,
        clock: Clock,
        *,
        stall_s: float,
        said: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address, self._config, self._clock, self._stall_s, self._said = address, stream, clock, stall_s, said
        self._decoder = Decoder()
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._ready: deque[CapturedFrame] = deque()
        self._times = StreamClock(stream.max_skew_s)
        self._reports = SenderReports()
        self._damage = Damage()
        self._good_s = 0.0
        self._hung = False

    def open(self) -> None:
        """Connect, and wait for the stream to begin. Raise SourceUnusable."""
        if self._config.transport == "udp":
            try:
                self._begin("udp", open_s=min(UDP_S, self._stall_s))
                return
            except SourceError as error:
                self._said(f"no video by UDP ({error}): by TCP instead")
        self._begin("tcp", open_s=self._stall_s)

    def read(self) -> CapturedFrame:
        """Return the next frame. Raise SourceStalled when the stream ends, breaks, or gives none for too long."""
        if self._container is None:
            raise SourceUnusable(f"{self._address.shown} is not open")
        while not self._ready:
            self._pull()
        return self._ready.popleft()

    def close(self) -> None:
        """Hang up."""
        self._packets = iter(())
        self._ready.clear()
        if self._container is not None:
            self._container.close()
            self._container = None

    def _begin(self, transport: str, *, open_s: float) -> None:
        self.close()
        asked_s, self._damage = self._clock.monotonic(), Damage()
        try:
            with self._damage.listening():
                self._container, video = open_video(
                    self._address.with_user, self._options(transport), open_s=open_s, read_s=self._stall_s
                )
        except (av.FFmpegError, OSError, SourceUnusable) as error:
            late = self._clock.monotonic() - asked_s >= open_s  # FFmpeg calls this invalid data, of what did not come
            why = f"nothing came for {open_s:g} s" if late else self._why(error)
            raise SourceUnusable(f"{self._address.shown}: {why}") from None
        self._packets, self._reports = self._container.demux(video), SenderReports()
        self._good_s, self._hung = self._clock.monotonic(), False
        self._damage.opened(self._good_s - asked_s)
        self._until_a_frame()

    def _until_a_frame(self) -> None:
        try:
            while not self._ready:
                self._pull()
        except SourceStalled as error:
            self.close()
            raise SourceUnusable(str(error)) from None

    def _options(self, transport: str) -> dict[str, str]:
        options = _OPTIONS | {"rtsp_transport": transport, "reorder_queue_size": _WAITING[transport]}
        options["tls_verify"] = str(int(self._config.verify))
        return options | {"ca_file": str(self._config.ca_file)} if self._config.ca_file else options

    def _pull(self) -> None:
        """Take the next packet, and what frames it makes."""
        asked_s = self._clock.monotonic()
        if self._hung:
            raise SourceStalled(f"{self._address.shown}: {self._nothing_came}")
        try:
            with self._damage.listening():
                packet = next(self._packets)
        except StopIteration:
            raise SourceStalled(f"{self._address.shown}: the camera has ended the stream") from None
        except (av.FFmpegError, OSError) as error:
            raise SourceStalled(f"{self._address.shown}: {self._why(error)}") from None
        # when the wait is over, FFmpeg first gives what it holds of the last frame, and would then wait once more
        waited_s = self._clock.monotonic() - asked_s
        self._hung = waited_s >= self._stall_s
        if self._hung:
            self._damage.cut_off(packet)
        self._decode(packet, self._clock.now_ns() - round(waited_s * 1e9 if self._hung else 0))
        if not self._hung and self._clock.monotonic() - self._good_s > self._stall_s:
            raise SourceStalled(f"{self._address.shown}: no whole frame could be decoded for {self._stall_s:g} s")

    def _decode(self, packet: Packet[VideoStream], arrived_ns: int) -> None:
        self._reports.note(packet)
        self._damage.note(packet)
        try:
            decoded = packet.decode()
        except (av.FFmpegError, MemoryError) as error:
            self._damage.undecodable(packet)
            self._ready.append(unusable(f"it cannot be decoded: {why(error)}", arrived_ns))
            return
        for frame in decoded:
            if isinstance(frame, VideoFrame):
                damaged = self._damage.shows(frame)
                self._ready.append(self._captured(frame, arrived_ns, damaged))
                self._good_s = self._good_s if damaged else self._clock.monotonic()

    def _captured(self, frame: VideoFrame, arrived_ns: int, damaged: bool) -> CapturedFrame:
        stream_ns = self._reports.time_ns(frame) if self._config.own_clock else None
        was_refused = self._times.refused
        stamp = self._times.stamp(arrived_ns, stream_ns)
        if self._times.refused and not was_refused and self._times.skew_ns is not None:
            off_s = -self._times.skew_ns / 1e9
            self._said(f"the camera's clock is {off_s:+.1f} s off the host's: frames get the host's time")
        return CapturedFrame(
            failing(LOST) if damaged else self._decoder.image(frame),
            stamp.captured_ns,
            stamp.source,
            error_ms=stamp.error_ms,
            luma=None if damaged else self._decoder.luma(frame),
        )

    @property
    def _nothing_came(self) -> str:
        return f"nothing came for {self._stall_s:g} s"

    def _why(self, error: Exception) -> str:
        if isinstance(error, av.error.ExitError):
            return self._nothing_came
        return self._address.hide(why(error))
