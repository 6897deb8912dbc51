"""RTSP server for tests, based on GStreamer: ``/usr/bin/python3 rtsp_server.py --stream road=road.units …``.

The server runs with the system's Python, which has GStreamer's bindings, and imports no module of the project. A
``.units`` file holds complete access units, as ``units.py`` writes them; each client gets them in a loop and in real
time. The first line of standard output is the port. Each later line is the Unix time in ns at which a client's first
unit was due. The server stops at the end of its standard input.
"""

from __future__ import annotations

import argparse
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

HEAD = struct.Struct(">4sIQ")
"""Codec, number of units, length of the loop in ns."""
UNIT = struct.Struct(">IQ")
"""Size in bytes and presentation time in ns of an access unit, followed by its data."""
PIPELINES = {
    b"h264": "video/x-h264,stream-format=byte-stream,alignment=au ! h264parse config-interval=-1 ! rtph264pay",
    b"hevc": "video/x-h265,stream-format=byte-stream,alignment=au ! h265parse config-interval=-1 ! rtph265pay",
}
"""Pipeline of each codec. The parser repeats the parameter sets before each key frame.

The payloader would repeat them before each slice, which starts a new frame in every decoder (H.264, 7.4.1.2.3).
"""
ROLE = "viewer"


class Units:
    """Access units of a file."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.codec, count, self.loop_ns = HEAD.unpack_from(data)
        self.units: list[tuple[int, bytes]] = []
        at = HEAD.size
        for _ in range(count):
            size, pts_ns = UNIT.unpack_from(data, at)
            at += UNIT.size
            self.units.append((pts_ns, data[at : at + size]))
            at += size
        self.interval_ms = max(1, round(self.loop_ns / count / 1e6))


class Feed:
    """Feed of one client's pipeline, in real time until the client disconnects."""

    def __init__(self, units: Units, source: Any) -> None:
        self._units, self._source, self._at, self._started = units, source, 0, GLib.get_monotonic_time()
        print(time.time_ns(), flush=True)
        GLib.timeout_add(max(1, units.interval_ms // 2), self._due)

    def _due(self) -> bool:
        while self._at * self._units.loop_ns / len(self._units.units) <= self._elapsed_ns():
            loops, index = divmod(self._at, len(self._units.units))
            pts_ns, data = self._units.units[index]
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = loops * self._units.loop_ns + pts_ns
            if self._source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return False
            self._at += 1
        return True

    def _elapsed_ns(self) -> int:
        return int((GLib.get_monotonic_time() - self._started) * 1000)


class Dropper:
    """Filter that drops one numbered payload, as an overloaded camera does."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, *_: object) -> Any:
        self._left -= 1
        return Gst.PadProbeReturn.OK if self._left else Gst.PadProbeReturn.DROP


def mount(server: Any, path: str, units: Units, options: argparse.Namespace) -> None:
    """Serve a file of units under a path."""
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=source is-live=true format=time block=false max-bytes=0 ! "
        f"{PIPELINES[units.codec]} name=pay0 pt=96 )"
    )
    factory.connect("media-configure", lambda _, media: _feed(units, media, options.drop))
    if options.user:
        factory.add_role_from_structure(_permissions(ROLE))
    if options.tcp_only:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.TCP)
    server.get_mount_points().add_factory(f"/{path}", factory)


def _feed(units: Units, media: Any, drop: int) -> None:
    element = media.get_element()
    if drop:
        kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        element.get_child_by_name("pay0").get_static_pad("src").add_probe(kinds, Dropper(drop))
    Feed(units, element.get_child_by_name("source"))


def _permissions(role: str) -> Any:
    structure = Gst.Structure.new_empty(role)
    for name in ("media.factory.access", "media.factory.construct"):
        structure.set_value(name, True)
    return structure


def secure(server: Any, options: argparse.Namespace) -> None:
    """Require a login if ``options.user`` is set, and use TLS if a certificate is given."""
    auth = GstRtspServer.RTSPAuth()
    if options.user:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", ROLE)
        if options.digest:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(options.user, options.password, token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
    if options.cert:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(options.cert, options.key))
    if options.user or options.cert:
        server.set_auth(auth)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="0")
    parser.add_argument("--stream", action="append", default=[], metavar="PATH=FILE")
    for name in ("--user", "--password", "--cert", "--key"):
        parser.add_argument(name, default="")
    parser.add_argument("--digest", action="store_true")
    parser.add_argument("--tcp-only", action="store_true")
    parser.add_argument("--drop", type=int, default=0, help="number of the frame of each client that is not sent")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(options.host)
    server.set_service(options.port)
    secure(server, options)
    for stream in options.stream:
        path, _, file = stream.partition("=")
        mount(server, path, Units(Path(file)), options)
    loop = GLib.MainLoop()
    if not server.attach(None):
        sys.exit("the port is in use")
    print(server.get_bound_port(), flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
