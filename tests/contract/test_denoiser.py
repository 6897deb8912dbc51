"""The contract of every denoiser, and the minimum gain in quality of denoisers that filter."""

from __future__ import annotations

import gc
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.prepare.denoise import (
    MEDIAN_NS,
    NOISY,
    TEMPORAL_NS,
    AutoDenoiser,
    BilateralDenoiser,
    Denoiser,
    Image,
    MedianDenoiser,
    NoDenoiser,
    TemporalDenoiser,
    noise_sigma,
)

HEIGHT, WIDTH, FRAMES = 180, 320, 12
SIGMA = 14.0
"""Standard deviation of the noise in grey levels per channel: a small sensor at night."""
MIN_GAIN_DB = 4.0


def footage() -> list[Image]:
    """Return clean frames of a textured yard in which a block moves: seeded, ``(H, W, 3)`` uint8."""
    rng = np.random.default_rng(7)
    ground = cv2.GaussianBlur(rng.uniform(40, 200, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 4.0)
    ground = cv2.normalize(ground, None, 50, 190, cv2.NORM_MINMAX).astype(np.uint8)
    cv2.line(ground, (0, 120), (WIDTH, 90), (230, 230, 230), 2)
    frames = []
    for n in range(FRAMES):
        frame = ground.copy()
        cv2.rectangle(frame, (20 + 12 * n, 60), (60 + 12 * n, 100), (30, 40, 200), -1)
        frames.append(frame)
    return frames


def noisy(frames: list[Image], sigma: float = SIGMA) -> list[Image]:
    rng = np.random.default_rng(11)
    return [np.clip(f + rng.normal(0.0, sigma, f.shape), 0, 255).astype(np.uint8) for f in frames]


def gain_db(denoiser: Denoiser, clean: list[Image], given: list[Image]) -> float:
    """Return by how many dB denoising raises the mean PSNR against the clean footage."""
    gains = [cv2.PSNR(denoiser.denoise(g), c) - cv2.PSNR(g, c) for c, g in zip(clean, given, strict=True)]
    return float(np.mean(gains))


class DenoiserContract:
    """Tests that every denoiser passes."""

    def test_the_denoiser_keeps_the_frame_shape_and_does_not_change_its_input(self, denoiser: Denoiser) -> None:
        for frame in noisy(footage()):
            before = frame.copy()
            result = denoiser.denoise(frame)
            assert (result.shape, result.dtype) == (frame.shape, np.uint8)
            assert np.array_equal(frame, before)

    def test_a_frame_that_the_denoiser_returned_is_not_changed_by_later_calls(self, denoiser: Denoiser) -> None:
        first, second, *_ = noisy(footage())
        denoiser.denoise(first)
        result = denoiser.denoise(second)
        kept = result.copy()
        denoiser.denoise(first)
        assert np.array_equal(result, kept)

    def test_a_denoiser_reports_the_number_of_bytes_that_it_really_keeps_in_memory(self, denoiser: Denoiser) -> None:
        frames = noisy(footage())
        tracemalloc.start()
        try:
            for frame in frames:
                denoiser.denoise(frame)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert denoiser.held_bytes <= held <= denoiser.held_bytes + 20_000

    def test_the_same_footage_gives_the_same_denoised_frames(self, denoiser: Denoiser) -> None:
        again = type(denoiser)()
        assert all(np.array_equal(denoiser.denoise(f), again.denoise(f)) for f in noisy(footage()))

    def test_the_denoiser_does_not_change_a_uniform_frame(self, denoiser: Denoiser) -> None:
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        assert np.array_equal(denoiser.denoise(frame), frame)

    def test_a_denoiser_accepts_frames_whose_size_changes_between_calls(self, denoiser: Denoiser) -> None:
        for frame in noisy(footage())[:3]:
            denoiser.denoise(frame)
        for size in ((64, 48), (2, 2), (1, 1), (WIDTH, HEIGHT)):
            small = cv2.resize(noisy(footage())[0], size)
            assert denoiser.denoise(small).shape == small.shape

    def test_denoised_clean_footage_keeps_its_quality(self, denoiser: Denoiser) -> None:
        assert all(cv2.PSNR(denoiser.denoise(f), f) > 35.0 for f in footage())


class FilterContract(DenoiserContract):
    """Tests that every filter passes."""

    def test_denoised_noisy_footage_has_a_higher_quality(self, denoiser: Denoiser) -> None:
        clean = footage()
        assert gain_db(denoiser, clean, noisy(clean)) > MIN_GAIN_DB


class TestNoDenoiser(DenoiserContract):
    @pytest.fixture
    def denoiser(self) -> Denoiser:
        return NoDenoiser()


class TestMedianDenoiser(FilterContract):
    @pytest.fixture
    def denoiser(self) -> Denoiser:
        return MedianDenoiser()


class TestBilateralDenoiser(FilterContract):
    @pytest.fixture
    def denoiser(self) -> Denoiser:
        return BilateralDenoiser()

    def test_the_bilateral_filter_keeps_an_edge_that_stands_out_of_the_noise(self, denoiser: Denoiser) -> None:
        edge = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        edge[:, WIDTH // 2 :] = 200
        (given,) = noisy([edge], 5.0)
        result = denoiser.denoise(given)
        beside = np.s_[:, WIDTH // 2 - 1 : WIDTH // 2 + 1]
        assert cv2.PSNR(result[beside], edge[beside]) > cv2.PSNR(given[beside], edge[beside])


class TestTemporalDenoiser(FilterContract):
    @pytest.fixture
    def denoiser(self) -> Denoiser:
        return TemporalDenoiser()

    def test_an_object_that_appears_is_visible_in_the_first_denoised_frame(self, denoiser: Denoiser) -> None:
        *before, last = footage()
        for frame in noisy(before):
            denoiser.denoise(frame)
        last = last.copy()
        cv2.rectangle(last, (200, 120), (240, 160), (225, 225, 225), -1)
        (given,) = noisy([last])
        inside = np.s_[124:156, 204:236]
        assert abs(float(denoiser.denoise(given)[inside].mean()) - float(given[inside].mean())) < 3.0


def centre_size(picture: Image) -> tuple[int, int]:
    """Return the height and width of a picture without a quarter at each border, in which noise is estimated."""
    height, width = picture.shape[:2]
    return height - 2 * (height // 4), width - 2 * (width // 4)


class TestAutoDenoiser(FilterContract):
    @pytest.fixture
    def denoiser(self) -> Denoiser:
        return AutoDenoiser()

    @pytest.mark.parametrize(
        ("per_pixel_ns", "changes", "held_planes"),
        [(TEMPORAL_NS, True, 3.25), (TEMPORAL_NS - 0.1, True, 0.25), (MEDIAN_NS, True, 0.25), (1.0, False, 0.25)],
    )
    def test_the_time_budget_of_a_noisy_frame_chooses_the_filter(
        self, per_pixel_ns: float, changes: bool, held_planes: float
    ) -> None:
        limited = AutoDenoiser(per_pixel_ns * HEIGHT * WIDTH * (1 + 1e-9) / 1e6)
        given = noisy(footage())[:2]
        assert [limited.denoise(frame) is not frame for frame in given] == [changes, changes]
        assert limited.held_bytes == held_planes * HEIGHT * WIDTH

    def test_the_denoiser_returns_a_clean_frame_as_the_same_object(self, denoiser: Denoiser) -> None:
        assert all(denoiser.denoise(f) is f for f in footage())

    def test_a_denoiser_keeps_less_memory_for_a_clean_camera(self, denoiser: Denoiser) -> None:
        for frame in (*noisy(footage())[:2], *footage()[-2:]):
            denoiser.denoise(frame)
        assert denoiser.held_bytes == HEIGHT * WIDTH // 4

    @given(st.lists(st.tuples(st.floats(0.0, 4.0), st.integers(1, 60), st.integers(1, 60)), max_size=6), st.data())
    def test_the_denoiser_filters_a_frame_only_if_its_noise_reaches_the_threshold(
        self, history: list[tuple[float, int, int]], data: st.DataObject
    ) -> None:
        denoiser, before = AutoDenoiser(), None
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        for sigma, height, width in history:
            shape = (height, width, 3)
            if before is not None and data.draw(st.booleans()):
                shape = (*before.shape, 3)
            frame = np.clip(128 + rng.normal(0.0, sigma, shape), 0, 255).round().astype(np.uint8)
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            same = before if before is not None and centre_size(before) == centre_size(grey) else None
            assert (denoiser.denoise(frame) is frame) == (noise_sigma(grey, same) < NOISY)
            before = grey

    def test_the_automatic_denoiser_improves_picture_quality_more_than_the_median_denoiser(
        self, denoiser: Denoiser
    ) -> None:
        clean = footage()
        given = noisy(clean)
        assert gain_db(denoiser, clean, given) > gain_db(MedianDenoiser(), clean, given)

    def test_a_moving_block_leaves_no_trail_in_denoised_frames(self, denoiser: Denoiser) -> None:
        clean = footage()
        for frame in noisy(clean):
            result = denoiser.denoise(frame)
        behind = np.s_[62:98, 22 : 20 + 12 * (FRAMES - 4)]  # where the block was, three frames and more ago
        assert cv2.PSNR(result[behind], clean[-1][behind]) > cv2.PSNR(noisy(clean)[-1][behind], clean[-1][behind])

    def test_texture_of_a_still_scene_does_not_count_as_noise(self, denoiser: Denoiser) -> None:
        rng = np.random.default_rng(3)
        gravel = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        denoiser.denoise(gravel)
        assert denoiser.denoise(gravel.copy()) is not gravel
        later = gravel.copy()
        assert denoiser.denoise(later) is later


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0, 20.0])
def test_the_denoiser_estimates_the_noise_level_within_8_percent(sigma: float) -> None:
    rng = np.random.default_rng(5)
    flat = np.full((HEIGHT, WIDTH), 128.0)
    one, two = (np.clip(flat + rng.normal(0.0, sigma, flat.shape), 0, 255).round().astype(np.uint8) for _ in range(2))
    assert noise_sigma(one) == pytest.approx(sigma, rel=0.08)
    assert noise_sigma(one, two) == pytest.approx(sigma, rel=0.08)


def test_edges_in_a_frame_do_not_count_as_noise() -> None:
    grey = cv2.cvtColor(footage()[0], cv2.COLOR_BGR2GRAY)
    assert noise_sigma(grey) < NOISY / 2
