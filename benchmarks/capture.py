"""Benchmark of one camera: memory and CPU time of a capture process at 640×360, reading from a real RTSP server.

``python -m benchmarks.capture`` runs the benchmark. The RTSP server is GStreamer's; `make peers` installs GStreamer.
The benchmark also compares PyAV with OpenCV in reading files; decision 5 in ``docs/decisions`` is based on this
comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import psutil
import typer

from benchmarks.report import RESULTS, Out, keep
from edge_agent.camera.children import CHILD_ENVIRONMENT
from edge_agent.exceptions import SourceEnded
from edge_agent.sources.file import FileSource
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from ingest.runtime.clock import ManualClock
from tests.peers import units
from tests.peers.rtsp import RtspServer, why_not

START_S = 3.0
"""Time for the capture process to import modules, connect and fill its buffers, in seconds, before the measurement
begins."""
BAR_MB = 150.0


def child(source: str, seconds: float, gate: dict[str, Any] | None = None) -> dict[str, float]:
    """Run a capture process, and return its memory in MB and its CPU use in per cent of one core."""
    camera = {"name": "bench", "source": source, "gate": gate or {}}
    orders = {"camera": camera, "epoch": 1, "truth_folder": None, "state_folder": None}
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.camera.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | CHILD_ENVIRONMENT,
    )
    assert process.stdin
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    process.stdin.flush()
    watched = psutil.Process(process.pid)
    time.sleep(START_S)
    began_s = sum(watched.cpu_times()[:2])
    time.sleep(seconds)
    used_s, memory = sum(watched.cpu_times()[:2]) - began_s, watched.memory_full_info()
    process.stdin.close()
    process.wait(timeout=30)
    return {
        "resident_mb": round(memory.rss / 1e6, 1),
        "own_mb": round(memory.uss / 1e6, 1),
        "core_percent": round(100 * used_s / seconds, 2),
    }


@contextmanager
def served(folder: Path) -> Any:
    """Serve videos of a simulated road over RTSP in several codecs and frame rates."""
    files = {}
    for codec, fps in (("h264", 5), ("hevc", 5), ("h264", 25)):
        scene = SimulatedScene(SceneConfig(kind="road", fps=fps))
        clip = units.encode(
            folder / f"{codec}{fps}.mp4", (scene.render(i).image for i in range(20 * fps)), fps, codec
        )
        files[f"{codec}{fps}"] = units.units(clip, folder / f"{codec}{fps}.units")
    server = RtspServer(files)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def through_pyav(path: Path, every: int) -> int:
    """Read a file to its end through PyAV, and convert each ``every``-th frame. Return the number of frames."""
    clock, count = ManualClock(), 0
    source = FileSource(path, 100, clock, pace=FramePacer(100, clock, wait=clock.advance))
    source.open()
    try:
        while captured := source.read():
            count += 1
            _ = captured.image if count % every == 0 else None
    except SourceEnded:
        return count
    return count


def through_opencv(path: Path, every: int) -> int:
    """Read a file to its end through OpenCV, as ``through_pyav`` does."""
    video, count = cv2.VideoCapture(str(path)), 0
    while video.grab():
        count += 1
        _ = video.retrieve() if count % every == 0 else None
    return count


def _timed(read: Callable[[Path, int], int], path: Path, every: int) -> float:
    """Read a file, and return the average CPU time per frame in ms."""
    began_s = time.process_time()
    count = read(path, every)
    return (time.process_time() - began_s) / count * 1e3


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Measured seconds of each child.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of PyAV and OpenCV.")] = 5,
    out: Out = RESULTS,
) -> None:
    """Measure all cases, and print and save the results with date and machine."""
    if reason := why_not():
        raise typer.BadParameter(f"no RTSP server: {reason}")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as server:
        cases = {
            "H.264, 5 frames/s": child(server.url("h2645"), seconds),
            "H.265, 5 frames/s": child(server.url("hevc5"), seconds),
            "H.264, 25 frames/s": child(server.url("h26425"), seconds),
            "H.264, 25 frames/s, max_fps 5": child(server.url("h26425"), seconds, {"max_fps": 5}),
        }
        clip = Path(name) / "h26425.mp4"
        files: dict[str, list[float]] = {}
        for _ in range(rounds):
            for every in (1, 5):
                for who, read in (("PyAV", through_pyav), ("OpenCV", through_opencv)):
                    files.setdefault(f"{who}, 1 picture of {every}", []).append(_timed(read, clip, every))
    taken = {name: [round(ms, 3) for ms in each] for name, each in files.items()}
    report = keep("capture", {"children": cases, "bar_mb": BAR_MB, "files_ms_per_frame": taken}, out)
    typer.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
