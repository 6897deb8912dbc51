"""Tests of the encoder and its byte budget: limits, settling time, recovery, restarts and reported sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.encode.buckets import DAY_S, START_S, CarriedBudget, make_buckets
from edge_agent.encode.budget import Budget, Ladder, Rung
from edge_agent.encode.encoder import Encoded, Encoder, OverBudget
from edge_agent.exceptions import FrameUnusable
from edge_agent.redact.redactor import Redaction, Redactor
from ingest import picture
from ingest.contract.records import Box
from ingest.runtime.clock import ManualClock
from ingest.site import EncodeConfig, RedactConfig

Image = npt.NDArray[np.uint8]

SETTLED = 40
"""Frames after which a test expects the budget to have settled."""


def redaction(image: Image) -> Redaction:
    return Redactor(RedactConfig()).apply(image)


def noise(width: int = 320, height: int = 256, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


@dataclass
class Run:
    """Simulated camera with a byte budget, and its sent and refused frames."""

    budget: Budget
    now_s: float = 0.0
    sent: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0
    floor: Rung = Ladder(EncodeConfig()).floor

    def frame(self, size_at: Callable[[float], float], step_s: float) -> None:
        """Offer one frame after ``step_s``; ``size_at`` returns the frame's size at a quality level."""
        self.now_s += step_s
        rung = self.budget.rung(self.now_s)
        while rung is not None:
            size = int(size_at(0.0 if rung == self.floor else self.budget.level))
            if self.budget.spend(size):
                self.sent.append((self.now_s, size))
                return
            rung = self.budget.floor()
        self.refused += 1


def exponential(floor_bytes: float, k: float) -> Callable[[float], float]:
    return lambda level: floor_bytes * math.exp(k * level)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(10, 2_000_000), st.floats(0.1, 5.0)), max_size=80),
    st.integers(0, 200_000),
    st.integers(0, 10_000_000),
    st.floats(0.1, 30.0),
)
def test_bytes_sent_in_any_time_window_stay_within_the_budget_rate_plus_one_burst(
    frames: list[tuple[float, int, float]], per_s: int, per_day: int, burst_s: float
) -> None:
    run = Run(Budget(EncodeConfig(bytes_per_s=per_s, bytes_per_day=per_day, burst_s=burst_s)))
    for step_s, size, k in frames:
        run.frame(exponential(size, k), step_s)
    for (first, (begin_s, _)), (last, (end_s, _)) in itertools.combinations_with_replacement(enumerate(run.sent), 2):
        spent = sum(size for _, size in run.sent[first : last + 1])
        if per_s:
            assert spent <= per_s * (end_s - begin_s + burst_s) + 1
        if per_day and end_s - begin_s <= DAY_S:
            assert spent <= per_day + 1
    assert per_s or per_day or not run.refused


@pytest.mark.parametrize("k", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("floor_share", [0.1, 0.8, 2.5])
@pytest.mark.parametrize("step_s", [0.04, 0.7])
def test_bytes_sent_in_any_part_of_a_long_run_stay_within_the_budget_rate(
    k: float, floor_share: float, step_s: float
) -> None:
    run = Run(Budget(EncodeConfig(bytes_per_s=10_000)))
    for _ in range(600):
        run.frame(exponential(10_000 * step_s * floor_share, k), step_s)
    assert run.sent
    sums = list(itertools.accumulate((size for _, size in run.sent), initial=0))
    for first, last in itertools.combinations(range(0, len(run.sent), 7), 2):
        window_s = run.sent[last][0] - run.sent[first][0]
        assert sums[last + 1] - sums[first] <= 10_000 * (window_s + 2) + 1


def test_a_camera_that_restarts_all_day_stays_within_the_daily_budget(tmp_path: Path) -> None:
    config, clock = EncodeConfig(bytes_per_day=50_000_000), ManualClock()
    spent = 0
    while clock.seconds < DAY_S:
        carried, run = CarriedBudget(tmp_path / "capture" / "a.budget", clock), Run(Budget(config), clock.seconds)
        carried.restore(run.budget.buckets)
        for _ in range(4):  # then the capture is killed and takes a while to restart
            run.frame(exponential(4_000, 2.0), 1.0)
            carried.save(run.budget.buckets)
        clock.advance(30.0)
        spent += sum(size for _, size in run.sent)
    assert 0.5 * 50_000_000 < spent <= 50_000_000


@pytest.mark.parametrize("clock_s", [-86_400.0, 10.0, 3650 * 86_400.0])
def test_the_remaining_byte_budget_survives_a_restart_and_a_clock_jump(tmp_path: Path, clock_s: float) -> None:
    config, clock, path = EncodeConfig(bytes_per_s=1000, burst_s=100.0), ManualClock(), tmp_path / "a.budget"
    (before,) = make_buckets(config)
    before.left = 20_000.0
    CarriedBudget(path, clock).save([before])
    clock.advance(clock_s)
    (after,) = make_buckets(config)
    CarriedBudget(path, clock).restore([after])
    assert after.left == min(after.capacity, 20_000.0 + max(0.0, clock_s) * 1000)
    (other,) = make_buckets(EncodeConfig(bytes_per_s=2000, burst_s=100.0))
    CarriedBudget(path, clock).restore([other])
    assert other.left == 2000 * START_S  # nothing is known of a changed budget


def test_a_restored_byte_budget_grows_with_the_time_between_restarts_after_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    clock, path = ManualClock(started_ns=10**18), tmp_path / "a.budget"
    (bucket,) = make_buckets(EncodeConfig(bytes_per_s=1000, burst_s=100.0))
    bucket.left = 0.0
    CarriedBudget(path, clock).save([bucket])
    clock.advance(-86_400.0)
    for _ in range(6):
        CarriedBudget(path, clock).restore([bucket])
        clock.advance(5.0)
    assert bucket.left == pytest.approx(25_000.0)


def test_a_huge_byte_budget_file_is_not_read_into_memory_and_can_be_rewritten(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "a.budget"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # no memory holds it
    (before,), (after,) = (make_buckets(EncodeConfig(bytes_per_s=1000)) for _ in range(2))
    CarriedBudget(path, clock).restore([before])
    before.left = 7.0
    CarriedBudget(path, clock).save([before])
    CarriedBudget(path, clock).restore([after])
    assert after.left == 7.0


@pytest.mark.parametrize("content", [b"", b"\x00" * 512, b"[" * 5000, b'{"at_s": 1e999, "buckets": []}', b"{}"])
def test_an_unreadable_byte_budget_file_is_ignored(tmp_path: Path, content: bytes) -> None:
    path, (bucket,) = tmp_path / "a.budget", make_buckets(EncodeConfig(bytes_per_s=1000))
    path.write_bytes(content)
    left = bucket.left
    CarriedBudget(path, ManualClock()).restore([bucket])
    assert bucket.left == left
    CarriedBudget(tmp_path, ManualClock()).save([bucket])  # an unwritable file is ignored too


def test_a_new_encoder_continues_with_the_remaining_budget_of_the_last_encoder(tmp_path: Path) -> None:
    config, clock = EncodeConfig(bytes_per_day=200_000_000), ManualClock()
    sent = []
    for _ in range(2):
        encoder = Encoder(config, CarriedBudget(tmp_path / "a.budget", clock))
        results = [encoder.encode(redaction(noise()), 0.0) for _ in range(20)]
        sent.append([len(result.data) for result in results if isinstance(result, Encoded)])
    assert sent[0]
    assert sent[1] == []  # the first encoder has spent the starting allowance


def test_a_day_of_busy_frames_stays_within_the_daily_budget() -> None:
    run = Run(Budget(EncodeConfig(bytes_per_day=50_000_000)))
    for _ in range(int(3 * DAY_S / 4)):
        run.frame(exponential(16_000, 2.0), 4.0)
    for begin_s in (0.0, DAY_S / 2, DAY_S, 2 * DAY_S):
        day = sum(size for at_s, size in run.sent if begin_s <= at_s < begin_s + DAY_S)
        assert 30_000_000 < day <= 50_000_000


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 4.5), st.floats(0.05, 0.9), st.floats(0.04, 0.5), st.floats(2.0, 30.0))
def test_the_quality_level_settles_where_sent_bytes_equal_the_budget_rate(
    k: float, level: float, step_s: float, burst_s: float
) -> None:
    rate = 50_000.0
    scene = exponential(rate * step_s / math.exp(k * level), k)  # at this level a frame costs exactly the rate
    run = Run(Budget(EncodeConfig(bytes_per_s=int(rate), burst_s=burst_s)))
    settle_s = max(SETTLED * step_s, 8 * burst_s)
    while run.now_s < settle_s:
        run.frame(scene, step_s)
    began_s, refused, at = run.now_s, run.refused, len(run.sent)
    for _ in range(300):
        run.frame(scene, step_s)
    assert run.refused == refused, "no frame is withheld after settling"
    spent = sum(size for _, size in run.sent[at:]) / (run.now_s - began_s)
    assert spent == pytest.approx(rate, rel=0.1)
    assert k * abs(run.budget.level - level) < 0.3, "distance as a logarithm of the size"


@settings(deadline=None)
@given(st.floats(1.0, 4.0), st.floats(0.05, 1.0))
def test_frames_are_refused_while_a_scene_exceeds_the_byte_budget_and_accepted_once_it_becomes_simpler(
    k: float, step_s: float
) -> None:
    run = Run(Budget(EncodeConfig(bytes_per_s=20_000)))
    for _ in range(SETTLED):
        run.frame(exponential(500_000, k), step_s)
    assert run.refused > SETTLED / 2, "even the floor exceeds the capacity of the bucket"
    assert run.budget.level == 0
    run.refused = 0
    for _ in range(2 * SETTLED):
        run.frame(exponential(20_000 * step_s / math.exp(k) / 3, k), step_s)
    assert run.budget.level > 0.9
    assert run.refused <= 2.1 / step_s, "frames are refused at most while the bucket fills"


def test_the_byte_budget_left_from_a_quiet_night_is_used_in_the_first_busy_half_hour() -> None:
    run = Run(Budget(EncodeConfig(bytes_per_day=40_000_000)))
    for _ in range(600):
        run.frame(exponential(500, 1.0), 60.0)  # a still scene: one frame a minute for ten hours
    assert run.budget.level == 1.0
    for _ in range(600):
        run.frame(exponential(3_000, 2.0), 1.0)
    assert run.budget.level > 0.1
    assert not run.refused
    assert sum(size for _, size in run.sent[600:]) > 2_000_000, "several times the inflow of that time"


def test_a_new_token_bucket_starts_with_the_inflow_of_one_minute() -> None:
    (day,) = make_buckets(EncodeConfig(bytes_per_day=86_400_000))
    assert day.left <= 86_400_000 / DAY_S * START_S
    assert day.capacity == 86_400_000 / 4


def test_a_clock_that_goes_back_adds_no_bytes_to_a_token_bucket() -> None:
    (bucket,) = make_buckets(EncodeConfig(bytes_per_s=1_000))
    bucket.refill(100.0)
    bucket.left = 0.0
    for now_s in (50.0, 100.0, 40.0):
        bucket.refill(now_s)
    assert bucket.left == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=1), st.integers(1, 100), st.integers(1, 100), st.floats(0.1, 1.0))
def test_quality_and_scale_never_fall_below_their_configured_minimum(
    levels: list[float], worst: int, best: int, min_scale: float
) -> None:
    assume(worst <= best)
    ladder = Ladder(EncodeConfig(quality=best, min_quality=worst, min_scale=min_scale, bytes_per_s=1))
    for level in levels:
        rung = ladder.rung(level)
        assert worst <= rung.quality <= best
        assert min_scale <= rung.scale <= 1.0
    assert ladder.floor == (worst, min_scale)
    assert ladder.rung(1.0) == (best, 1.0)


def test_small_changes_of_the_quality_level_do_not_change_the_picture_size() -> None:
    ladder = Ladder(EncodeConfig(bytes_per_s=1))
    for level in (0.2, 0.31, 0.43):
        ladder.rung(level)
        scales = {ladder.rung(level + wobble).scale for wobble in (-0.02, 0.02) * 10}
        assert len(scales) == 1, level


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
@pytest.mark.parametrize("bytes_per_s", [0, 40_000])
def test_reported_encoding_size_and_quality_match_the_encoded_bytes(encoding: str, bytes_per_s: int) -> None:
    encoder = Encoder(EncodeConfig(encoding=encoding, bytes_per_s=bytes_per_s))  # type: ignore[arg-type]
    found = [encoder.encode(redaction(noise(seed=number)), number * 0.2) for number in range(SETTLED)]
    sent = [one for one in found if isinstance(one, Encoded)]
    assert sent
    for one in sent:
        size = (one.width, one.height)
        picture.check(one.data, one.encoding, size)
        assert picture.pixels(one.data, encoding, size).shape == (one.height, one.width, 3)
        assert one.scaled_from == (None if size == (320, 256) else (320, 256))
    if bytes_per_s:
        assert sent[-1].scaled_from
        assert sum(len(one.data) for one in sent) <= 40_000 * (SETTLED * 0.2 + 2)
    else:
        assert {(one.quality, one.scaled_from) for one in sent} == {(85, None)}


def test_boxes_are_scaled_together_with_the_encoded_picture() -> None:
    box = Box(10, 20, 30, 40)
    assert Encoded(b"", "jpeg", 40, 160, 64, (320, 256)).scaled(box) == Box(5, 5, 15, 10)
    assert Encoded(b"", "jpeg", 85, 320, 256, None).scaled(box) == box


def test_a_frame_over_the_byte_budget_is_encoded_again_at_minimum_quality_and_then_refused() -> None:
    encoder = Encoder(EncodeConfig(bytes_per_s=10_000, burst_s=1.0))
    floor = Encoder(EncodeConfig(quality=40, bytes_per_s=1_000_000, min_scale=0.5))
    assert isinstance(floor.encode(redaction(noise()), 0.0), Encoded)
    once = encoder.encode(redaction(noise()), 0.0)
    assert isinstance(once, Encoded)
    assert (once.quality, once.width, once.height) == (40, 160, 128)
    left = 10_000 - len(once.data)
    assert isinstance(encoder.encode(redaction(noise()), 0.01), Encoded if len(once.data) < left else OverBudget)
    assert isinstance(encoder.encode(redaction(noise()), 0.02), OverBudget)
    assert isinstance(encoder.encode(redaction(noise()), 1.1), Encoded)


def test_encoding_a_picture_without_pixels_raises_frame_unusable() -> None:
    with pytest.raises(FrameUnusable):
        Encoder(EncodeConfig()).encode(redaction(np.zeros((0, 160, 3), np.uint8)), 0.0)


def test_an_encoder_setting_with_min_quality_above_quality_is_rejected() -> None:
    with pytest.raises(ValidationError, match="at or below quality"):
        EncodeConfig(quality=30, bytes_per_s=1000)
    assert EncodeConfig(quality=30).quality == 30
