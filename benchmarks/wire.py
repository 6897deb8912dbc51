"""Benchmark of a camera behind an impaired network link: captured frames, and time to recover after the impairment.

``python -m benchmarks.wire`` runs the benchmark; it needs root or unprivileged user namespaces. A real RTSP server
sends real footage with a number drawn into each frame, through a relay that drops, delays and throttles IP packets.
Each impairment has its own server, link and spool. The agent reconnects with its normal back-off. The benchmark
compares each frame that the agent keeps with the frame that the server sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import numpy.typing as npt
import typer

from benchmarks.report import DATA, RESULTS, Out, keep
from edge_agent.camera.camera import START_S
from ingest.runtime.backoff import CAP_S
from ingest.site.camera import WatchConfig
from tests.peers import rtsp, units
from tests.peers.network import badwire
from tests.peers.network.badwire import BadWire
from tests.peers.network.farcamera import FarCamera
from tests.peers.numbered import marked
from tests.peers.rig import flows, until

FOOTAGE = DATA / "highway.avi"
FPS = 25
STALL_S: float = WatchConfig().stall_s
BOUND_S = CAP_S + STALL_S + START_S
"""Maximum time to recover, in seconds. In the worst case, a connection that was opened during the bad network stalls;
the agent then waits for its back-off and connects again."""
USUAL_S, AFTER_S, LOOK_S = 5.0, 5.0, 0.02
LOSS, JITTER_S = 0.05, 0.2
KILLS = 20


@dataclass
class Course:
    """Run of one impairment: a camera, its network link, and the measurements during the run."""

    there: FarCamera
    wire: BadWire
    seconds: float
    back_s: list[float] = field(default_factory=list)
    longest_gap_s: float = 0.0
    packets: dict[str, int] = field(default_factory=dict)

    async def restored(self) -> None:
        """Measure the time from now to the next frame."""
        self.back_s.append(await flows(self.there.camera, 1))

    async def watch(self) -> None:
        """Measure the longest time without a frame, until cancelled."""
        kept, at_s = self.there.camera.kept, time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now_s - at_s)
            if self.there.camera.kept != kept:
                kept, at_s = self.there.camera.kept, now_s


Impair = Callable[[Course], Awaitable[None]]


async def _killed(course: Course) -> None:
    """Kill and restart the RTSP server ``KILLS`` times.

    The server is down for up to 3 s, and then runs for up to 6 s.
    """
    chance = random.Random(0)
    for _ in range(KILLS):
        epoch = course.there.camera.epoch
        course.there.server.kill()
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        await asyncio.to_thread(course.there.server.start)
        began_s = time.monotonic()
        await until(lambda: course.there.camera.epoch > epoch, "a new start")  # noqa: B023  (it is awaited in this iteration)
        await flows(course.there.camera, 1)
        course.back_s.append(time.monotonic() - began_s)
        await asyncio.sleep(chance.uniform(1.0, 6.0))


async def _hung(course: Course) -> None:
    course.there.server.hang()
    await asyncio.sleep(course.seconds)
    course.there.server.go_on()
    await course.restored()


async def _dead(course: Course) -> None:
    await _bad(course, loss=1.0)


async def _third(course: Course) -> None:
    """Limit the network link to a third of the footage's bandwidth."""
    before = course.wire.set()["carried_bytes"]
    await asyncio.sleep(USUAL_S)
    usual = (course.wire.set()["carried_bytes"] - before) / USUAL_S
    await _bad(course, bytes_per_s=usual / 3)


def _lossy(*, in_order: bool) -> Impair:
    async def impair(course: Course) -> None:
        await _bad(course, loss=LOSS, jitter_s=JITTER_S, in_order=in_order)

    return impair


async def _bad(course: Course, **how: Any) -> None:
    before = course.wire.set(**how)
    await asyncio.sleep(course.seconds)
    course.packets = {name: count - before[name] for name, count in course.wire.set().items()}
    await course.restored()


CASES: dict[str, tuple[str, Impair]] = {
    f"server killed {KILLS} times": ("tcp", _killed),
    "server hung": ("tcp", _hung),
    "wire dead": ("tcp", _dead),
    "a third of the bandwidth": ("tcp", _third),
    "5 % loss, 0 to 200 ms, TCP": ("tcp", _lossy(in_order=False)),
    "5 % loss, 0 to 200 ms in order, TCP": ("tcp", _lossy(in_order=True)),
    "5 % loss, 0 to 200 ms, UDP": ("udp", _lossy(in_order=False)),
    "5 % loss, 0 to 200 ms in order, UDP": ("udp", _lossy(in_order=True)),
}


def footage(folder: Path) -> Path:
    """Encode footage in the way a camera does, with a number drawn into each frame.

    Write a list of the video's access units beside the video file.
    """
    clip = units.encode(folder / "highway.mp4", _numbered(), FPS)
    units.units(clip, clip.with_suffix(".units"))
    return clip


def _numbered() -> Iterator[npt.NDArray[np.uint8]]:
    with av.open(str(FOOTAGE)) as film:
        for number, frame in enumerate(film.decode(video=0)):
            yield marked(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), number)


@asynccontextmanager
async def _watched(course: Course) -> Any:
    watching = asyncio.create_task(course.watch())
    try:
        yield
    finally:
        watching.cancel()


async def run(clip: Path, transport: str, impair: Impair, seconds: float) -> dict[str, Any]:
    """Run one impairment and return its report."""
    with tempfile.TemporaryDirectory() as folder, BadWire.laid() as wire:
        there = FarCamera(Path(folder), wire, clip, transport=transport, cap_s=CAP_S)
        course = Course(there, wire, seconds)
        try:
            with there.near():
                async with there.rig.running():
                    await flows(there.camera, int(USUAL_S) * FPS)
                    async with _watched(course):
                        await impair(course)
                    await asyncio.sleep(AFTER_S)
            return report(course)
        finally:
            there.close()


def report(course: Course) -> dict[str, Any]:
    """Return the report of a finished run."""
    found = course.there.found()
    return {
        "captured": found.captured,
        "kept": found.kept,
        "withheld": dict(found.withheld),
        "kept_though_damaged": found.damaged,
        "reconnects": found.epochs - 1,
        "longest_gap_s": round(course.longest_gap_s, 2),
        "longest_behind_s": round(found.behind_s, 2),
        "back_after_s": round(max(course.back_s), 2),
        "bound_s": BOUND_S,
        "times_not_as_near_as_said": found.untrue,
        "times_not_later_than_before": found.backwards,
        "balanced": not found.unbalanced_epochs,
        "packets": course.packets,
    }


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Duration of each impairment in seconds.")] = 60.0,
    only: Annotated[str, typer.Option(help="Run only impairments whose name contains this text.")] = "",
    out: Out = RESULTS,
) -> None:
    """Run every impairment, and print and save the results with date and machine."""
    if reason := badwire.why_not() or rtsp.why_not() or ("" if FOOTAGE.exists() else f"no {FOOTAGE.name}"):
        raise typer.BadParameter(f"the benchmark cannot run here: {reason}")
    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = footage(Path(folder))
        for name, (transport, impair) in CASES.items():
            if only in name:
                cases[name] = asyncio.run(run(clip, transport, impair, seconds))
                typer.echo(f"{name}: {json.dumps(cases[name])}")
    result = {
        "footage": f"{FOOTAGE.name}, numbered, H.264, {FPS} frames/s",
        "seconds": seconds,
        "stall_s": STALL_S,
        "backoff_cap_s": CAP_S,
        "cases": cases,
    }
    keep("wire", result, out)
    failed = [n for n, c in cases.items() if not c["balanced"] or c["back_after_s"] > BOUND_S]
    typer.echo(f"failed: {', '.join(failed)}" if failed else "all recovered in time, all balanced")
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    typer.run(main)
