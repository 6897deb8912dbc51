"""RTSP server that a test can kill, hang and restart on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")
_NEEDS = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); "
    "assert all(map(Gst.ElementFactory.find, ('appsrc', 'h264parse', 'h265parse', 'rtph264pay', 'rtph265pay')))"
)


def why_not() -> str:
    """Return why no server can run on this machine, or an empty text if a server can."""
    if not Path(PYTHON).exists():
        return f"no {PYTHON}"
    probe = subprocess.run([PYTHON, "-c", _NEEDS], capture_output=True, text=True, timeout=60, check=False)
    last = (probe.stderr.strip().splitlines() or ["no GStreamer RTSP server"])[-1]
    return "" if probe.returncode == 0 else f"{last}; `make peers` installs it"


class RtspServer:
    """Server of ``.units`` files, each under its name."""

    def __init__(
        self, files: dict[str, Path], *options: str, within: Sequence[str] = (), host: str = "127.0.0.1"
    ) -> None:
        """Prepare a server. The command prefix ``within`` may run the server in a network namespace."""
        self._files, self._options, self._within, self._host = files, options, within, host
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.begun_ns: list[int] = []
        """Time of each client's first frame in Unix ns; known after ``kill``."""

    def start(self) -> None:
        """Start on the same port as before, if any. Return when the server listens."""
        streams = [f"--stream={name}={file}" for name, file in self._files.items()]
        self._process = subprocess.Popen(
            [
                *self._within,
                *(PYTHON, str(SCRIPT), f"--host={self._host}", f"--port={self.port}"),
                *(*streams, *self._options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """Kill the server, even when it hangs."""
        if self._process is not None:
            self._process.kill()
            said, _ = self._process.communicate()
            self.begun_ns += map(int, said.split())
            self._process = None

    def hang(self) -> None:
        """Suspend the server: its connections stay open, and it sends nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume a suspended server."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def url(self, name: str, scheme: str = "rtsp") -> str:
        """Return the URL of a stream."""
        return f"{scheme}://{self._host}:{self.port}/{name}"
