"""Test that committed rows survive a hundred kills at random moments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILLS = """
import os, random, select, signal, sys, time
from pathlib import Path
from edge_agent.spool.schema import Row
from edge_agent.spool.seal import Seal
from edge_agent.spool.store import SpoolStore

path, kills, seal = Path(sys.argv[1]), int(sys.argv[2]), Seal([bytes(range(32))])
chance = random.Random(int(sys.argv[3]))

def write(say, first):
    '''Keep, settle and remove rows for ever; write each number once it is promised.'''
    spool = SpoolStore(path, "agent", seal=seal)
    seq = first
    while True:
        count = 1 + seq % 4
        spool.keep([Row("frame", "a", 5, seq + i, seq + i, bytes([seq % 251]) * 9_000) for i in range(count)])
        os.write(say, b"".join(b"%d\\n" % (seq + i) for i in range(count)))
        seq += count
        if seq % 3 == 0:
            gone = spool.settle_late(1 << 60, 2)
            os.write(say, b"".join(b"-%d\\n" % row.seq for row in gone))  # written before the row is removed
            spool.remove([row.id for row in gone])

promised, may_be_gone, last = set(), set(), -1
for kill in range(kills):
    ear, say = os.pipe()
    writer = os.fork()
    if not writer:
        os.close(ear)
        write(say, last + 1)
    os.close(say)
    heard, rows, removals = b"", chance.randrange(2, 13), chance.randrange(3)
    while heard.count(b"\\n") - heard.count(b"-") < rows or heard.count(b"-") < removals:
        more = os.read(ear, 1 << 20)
        assert more, "the writer ended by itself"
        heard += more
    select.select([], [], [], chance.random() * 0.02)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    while more := os.read(ear, 1 << 20):
        heard += more
    os.close(ear)
    for line in heard.decode().rpartition("\\n")[0].splitlines():
        (may_be_gone.add(int(line[1:])) if line[0] == "-" else promised.add(int(line)))
    spool = SpoolStore(path, "agent", seal=seal)
    assert not spool.recoveries, spool.recoveries
    found = spool._db.execute("SELECT seq FROM outbox").fetchall()
    kept = {seq for (seq,) in found}
    assert len(found) == len(kept)
    assert promised - may_be_gone <= kept, sorted(promised - may_be_gone - kept)[:5]
    last = max(kept | promised)
    for row in spool.offered("late", 0, 1000):
        assert row.record == row.record[:1] * 9_000
    spool.close()
print(len(promised), len(may_be_gone))
"""


@pytest.mark.parametrize("seed", [1])
def test_committed_rows_are_in_the_spool_after_each_of_a_hundred_kills(tmp_path: Path, seed: int) -> None:
    argv = [sys.executable, "-c", KILLS, str(tmp_path / "spool.db"), "100", str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    promised, sent = map(int, done.stdout.split())
    assert promised > 500
    assert sent > 50
