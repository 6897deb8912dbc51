"""Write amplification of the spool: bytes written to the disk per byte of a kept frame.

Writing wears out flash cards. ``python -m benchmarks.wear`` measures the spool on the disk of ``--folder``. Frames
are stored, offered for sending and removed, one or four per commit, with and without frames in flight; in a simulated
outage, frames are only stored. The number of written bytes is the kernel's count for the process.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.report import RESULTS, Out, keep
from edge_agent.spool.schema import Row
from edge_agent.spool.store import SpoolStore
from ingest.contract import headers as h

BYTES = 60_000_000
"""Total size of the frames in each case: enough for a dozen checkpoints of SQLite's write-ahead log."""
AT_ONCE = 64


class WearCase(NamedTuple):
    """One pattern of use of the spool.

    ``on_their_way`` is the number of frames that wait for Kafka's acknowledgement, or None in an outage.
    """

    size: int
    in_a_commit: int
    on_their_way: int | None


CASES = [
    WearCase(size, n, way) for size in (10_000, 40_000, 120_000) for n, way in ((1, 0), (1, 8), (4, 8), (1, None))
]


def measure(case: WearCase, folder: Path) -> float:
    """Return the number of bytes written to the disk per byte stored in the spool."""
    spool = SpoolStore(folder / "spool.db", "wear")
    epoch = spool.begin_epoch("camera", "frame", 1)
    frames, offered, before = BYTES // case.size, list[int](), _written()
    record = os.urandom(case.size)
    for first in range(0, frames, case.in_a_commit):
        spool.keep([_row(epoch, seq, record) for seq in range(first, first + case.in_a_commit)])
        if case.on_their_way is None:
            continue
        offered += [row.id for row in spool.settle_live(0, AT_ONCE)]
        done = len(offered) - case.on_their_way
        if done > 0:
            spool.remove(offered[:done])
            del offered[:done]
    spool.close()
    return (_written() - before) / (frames * case.size)


def _row(epoch: int, seq: int, record: bytes) -> Row:
    return Row("frame", "camera", epoch, seq, time.time_ns(), record, h.new_traceparent())


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def main(
    folder: Annotated[Path, typer.Option(help="Folder on the disk to measure; not in memory.")] = Path("/var/tmp"),  # noqa: S108
    out: Out = RESULTS,
) -> None:
    """Measure all cases, and print and save the results with date and machine."""
    measured: list[dict[str, Any]] = []
    for case in CASES:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            measured.append({**case._asdict(), "written_per_byte": round(measure(case, Path(fresh)), 2)})
        typer.echo(json.dumps(measured[-1]))
    keep("wear", {"measured": measured}, out)


if __name__ == "__main__":
    typer.run(main)
