"""Frame source for RTSP cameras over TCP, UDP or TLS, with FFmpeg's codecs, such as H.264, H.265 and MJPEG."""

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
from edge_agent.sources.rtsp.clock import SenderReports, StreamClock
from edge_agent.sources.rtsp.damage import Damage
from edge_agent.sources.source import CapturedFrame, failing, unusable
from ingest.runtime.clock import Clock
from ingest.site import StreamConfig

UDP_S = 4.0
"""Maximum wait for the first UDP packets, in seconds. The limit is needed because a firewall may drop all packets
without any error."""
_OPTIONS = {
    "allowed_media_types": "video",  # audio would cost bandwidth and is not used
    "fpsprobesize": "0",  # estimating the frame rate would delay the first frames by two seconds
    "analyzeduration": "2000000",  # in µs
    "max_delay": "300000",  # in µs; the wait for a reordered packet, more than the jitter of a bad mobile link
    "buffer_size": "1048576",  # bytes; a burst as large as a key frame must not overflow the socket
}
_REORDER_PACKETS = {"udp": "512", "tcp": "8"}
"""Maximum number of packets that wait for a missing earlier packet.

Over UDP, 512 packets are enough for a stream of 20 Mbit/s during FFmpeg's ``max_delay``. Over TCP, a packet is
missing only if the camera dropped it or a relay reordered it. FFmpeg does not apply ``max_delay`` to TCP, so a slow
stream with a long queue would freeze for half a minute until the queue is full. With a maximum of 0 packets, FFmpeg
would not log lost packets.
"""


class StreamSource:
    """Frame source for one RTSP stream.

    ``on_notice`` receives messages for the operator's log, about conditions that are not failures.
    """

    def __init__(
        self,
        address: Address,
        stream: StreamConfig,
        clock: Clock,
        *,
        stall_s: float,
        on_notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address, self._config, self._clock, self._stall_s = address, stream, clock, stall_s
        self._on_notice = on_notice
        self._decoder = Decoder()
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._ready: deque[CapturedFrame] = deque()
        self._times = StreamClock(stream.max_skew_s)
        self._reports = SenderReports()
        self._damage = Damage()
        self._intact_s = 0.0
        self._timed_out = False

    def open(self) -> None:
        """Connect and wait for the first frame. Raise SourceUnusable."""
        if self._config.transport == "udp":
            try:
                self._begin("udp", open_s=min(UDP_S, self._stall_s))
                return
            except SourceError as error:
                self._on_notice(f"no video over UDP ({error}): using TCP instead")
        self._begin("tcp", open_s=self._stall_s)

    def read(self) -> CapturedFrame:
        """Return the next frame.

        Raise SourceStalled when the stream ends or breaks, or when no frame has arrived for ``stall_s``.
        """
        if self._container is None:
            raise SourceUnusable(f"RTSP camera {self._address.shown} is not open")
        while not self._ready:
            self._pull()
        return self._ready.popleft()

    def close(self) -> None:
        """Close the connection."""
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
            late = self._clock.monotonic() - asked_s >= open_s  # FFmpeg reports a timeout as invalid data
            why = f"no data for {open_s:g} s" if late else self._why(error)
            raise SourceUnusable(f"{self._address.shown}: {why}") from None
        self._packets, self._reports = self._container.demux(video), SenderReports()
        self._intact_s, self._timed_out = self._clock.monotonic(), False
        self._damage.opened(self._intact_s - asked_s)
        self._read_first_frame()

    def _read_first_frame(self) -> None:
        try:
            while not self._ready:
                self._pull()
        except SourceStalled as error:
            self.close()
            raise SourceUnusable(str(error)) from None

    def _options(self, transport: str) -> dict[str, str]:
        options = _OPTIONS | {"rtsp_transport": transport, "reorder_queue_size": _REORDER_PACKETS[transport]}
        options["tls_verify"] = str(int(self._config.verify))
        return options | {"ca_file": str(self._config.ca_file)} if self._config.ca_file else options

    def _pull(self) -> None:
        """Read and decode the next packet."""
        asked_s = self._clock.monotonic()
        if self._timed_out:
            raise SourceStalled(f"{self._address.shown}: {self._no_data}")
        try:
            with self._damage.listening():
                packet = next(self._packets)
        except StopIteration:
            raise SourceStalled(f"{self._address.shown}: the camera ended the stream") from None
        except (av.FFmpegError, OSError) as error:
            raise SourceStalled(f"{self._address.shown}: {self._why(error)}") from None
        # at a timeout, FFmpeg first returns the incomplete last frame, and would wait again at the next call
        waited_s = self._clock.monotonic() - asked_s
        self._timed_out = waited_s >= self._stall_s
        if self._timed_out:
            self._damage.cut_off(packet)
        self._decode(packet, self._clock.now_ns() - round(waited_s * 1e9 if self._timed_out else 0))
        if not self._timed_out and self._clock.monotonic() - self._intact_s > self._stall_s:
            raise SourceStalled(f"{self._address.shown}: the camera sent no intact frame for {self._stall_s:g} s")

    def _decode(self, packet: Packet[VideoStream], arrived_ns: int) -> None:
        self._reports.note(packet)
        self._damage.note(packet)
        try:
            decoded = packet.decode()
        except (av.FFmpegError, MemoryError) as error:
            self._damage.undecodable(packet)
            self._ready.append(unusable(f"the packet cannot be decoded: {why(error)}", arrived_ns))
            return
        for frame in decoded:
            if isinstance(frame, VideoFrame):
                damaged = self._damage.is_damaged(frame)
                self._ready.append(self._captured(frame, arrived_ns, damaged))
                self._intact_s = self._intact_s if damaged else self._clock.monotonic()

    def _captured(self, frame: VideoFrame, arrived_ns: int, damaged: bool) -> CapturedFrame:
        stream_ns = self._reports.time_ns(frame) if self._config.own_clock else None
        was_refused = self._times.refused
        time = self._times.stamp(arrived_ns, stream_ns)
        if self._times.refused and not was_refused and self._times.skew_ns is not None:
            off_s = -self._times.skew_ns / 1e9
            self._on_notice(
                f"the camera's clock differs from the host's clock by {off_s:+.1f} s: frames get the host's time"
            )
        return CapturedFrame(
            failing(LOST) if damaged else self._decoder.image(frame),
            time.captured_ns,
            time.source,
            error_ms=time.error_ms,
            luma=None if damaged else self._decoder.luma(frame),
        )

    @property
    def _no_data(self) -> str:
        return f"no data for {self._stall_s:g} s"

    def _why(self, error: Exception) -> str:
        if isinstance(error, av.error.ExitError):
            return self._no_data
        return self._address.hide(why(error))
