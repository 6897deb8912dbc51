"""The tracker's time: it stands still while nothing happened, and goes on while nobody looked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ingest.records import WITHHELD_REASONS, Detection, FrameRef, Result
from stream.analyse.analyser import HELD_STEP_S, Analyser
from stream.analyse.tracker import Track

GAP_S = 3.0


class Watch:
    """A tracker that notes the times that it is given."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def step(self, detections: Sequence[Detection], at_s: float, frame: str) -> list[Track]:
        self.at_s.append(at_s)
        return []


def result(seq: int, at_s: float, withheld: dict[str, int]) -> Result:
    return Result(
        camera="a",
        epoch=1,
        seq=seq,
        lane="live",
        pipeline="p",
        pipelines=("p",),
        captured_ns=round(at_s * 1e9),
        finished_ns=round(at_s * 1e9),
        width=64,
        height=48,
        source=FrameRef("frames", 0, seq),
        outcome="classified",
        withheld=withheld,
    )


@pytest.mark.parametrize("reason", WITHHELD_REASONS)
def test_time_is_lost_unless_nothing_happened_or_nobody_was_to_look(reason: str) -> None:
    watch = Watch()
    analyser = Analyser([], "", lambda: watch)
    analyser.step(result(0, 10.0, {}))
    analyser.step(result(9, 10.0 + GAP_S, {reason: 8}))
    held = reason in {"still", "rate", "schedule", "masked"}
    assert watch.at_s[1] - watch.at_s[0] == pytest.approx(HELD_STEP_S if held else GAP_S)
