"""Tests of simulated scenes: reproducible frames, and ground truth that agrees with the pixels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.sources.simulated import COUNTING_LINES, KINDS, RESTRICTED_ZONE, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.actors import CYCLE_S, SIZES_PX, crossings_between, present
from edge_agent.sources.simulated.config import BASE_HEIGHT_PX, BASE_WIDTH_PX
from edge_agent.sources.simulated.truth import TruthWriter, read_truth


def quiet(kind: str, **options: object) -> SceneConfig:
    return SceneConfig(kind=kind, noise_sigma=0.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("light", ["day", "night"])
@pytest.mark.parametrize("rain", [False, True])
def test_a_simulated_frame_depends_only_on_its_index(kind: str, light: str, rain: bool) -> None:
    config = SceneConfig(kind=kind, light=light, rain=rain, seed=5)  # type: ignore[arg-type]
    in_order = [SimulatedScene(config).render(i) for i in range(3, 6)]
    other = SimulatedScene(config)
    for expected in reversed(in_order):
        again = other.render(expected.index)
        np.testing.assert_array_equal(again.image, expected.image)
        assert again.objects == expected.objects


@pytest.mark.parametrize("kind", KINDS)
def test_all_differences_from_the_empty_simulated_scene_are_inside_ground_truth_boxes(kind: str) -> None:
    scene = SimulatedScene(quiet(kind, seed=2))
    last_frame_of_the_quiet_part = int(CYCLE_S * scene.config.fps) - 1
    empty = scene.render(last_frame_of_the_quiet_part)
    assert not empty.objects
    seen = 0
    for index in range(20, 110, 9):
        frame = scene.render(index)
        changed = (frame.image != empty.image).any(axis=2)
        for thing in frame.objects:
            left, top, right, bottom = (int(v) for v in thing.box)
            inside = changed[top:bottom, left:right]
            assert inside.mean() > 0.25
            assert inside[0].any() or inside[-1].any()
            changed[top:bottom, left:right] = False
            seen += 1
        assert changed[:, 70:-70].sum() == 0  # objects at the edges may be too little visible
    assert seen > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_scene_has_busy_and_quiet_times(kind: str) -> None:
    config = quiet(kind)
    counts = [len(present(config, t / 2)) for t in range(int(3 * CYCLE_S) * 2)]
    assert max(counts) >= 2
    assert counts.count(0) >= 6


@given(seed=st.integers(0, 1000), kind=st.sampled_from(KINDS), after=st.floats(0, 50), length=st.floats(0.05, 30))
@settings(deadline=None, max_examples=60)
def test_line_crossings_of_a_simulated_scene_agree_with_the_positions_of_its_objects(
    seed: int, kind: str, after: float, length: float
) -> None:
    config = quiet(kind, seed=seed)
    line_x = COUNTING_LINES[kind][0][0] * BASE_WIDTH_PX
    for crossing in crossings_between(config, after, after + length):
        assert after < crossing.at_s <= after + length
        actor = next(a for a in present(config, crossing.at_s) if a.id == crossing.actor)
        before, behind = (actor.centre(crossing.at_s + d)[0] - line_x for d in (-0.05, 0.05))
        assert (before < 0 < behind) == (crossing.direction == "forward")


@given(cuts=st.lists(st.floats(0, 60), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_simulated_line_crossings_do_not_depend_on_how_a_period_is_split_into_queries(cuts: list[float]) -> None:
    config = quiet("road")
    edges = [0.0, *sorted(cuts), 60.0]
    pieces = [c for a, b in itertools.pairwise(edges) for c in crossings_between(config, a, b)]
    assert pieces == crossings_between(config, 0.0, 60.0)


def test_a_night_scene_is_darker_and_a_larger_picture_has_larger_boxes() -> None:
    day, night = (SimulatedScene(quiet("road", light=light)).render(40) for light in ("day", "night"))
    assert night.image.mean() < 0.7 * day.image.mean()
    half = SimulatedScene(quiet("road", width=320, height=180)).render(40)
    assert half.image.shape == (180, 320, 3)
    for small, large in zip(half.objects, day.objects, strict=True):
        np.testing.assert_allclose(np.array(small.box) * 2, large.box, atol=3)


def test_simulated_noise_has_the_configured_strength() -> None:
    clean = SimulatedScene(quiet("road")).render(195).image.astype(float)
    noisy = SimulatedScene(SceneConfig("road", noise_sigma=6.0)).render(195).image.astype(float)
    assert 5.0 < (noisy - clean).std() < 7.0


def test_bright_parts_of_a_simulated_scene_are_noisier_than_dark_parts() -> None:
    clean = SimulatedScene(quiet("road")).render(195).image
    noise = SimulatedScene(SceneConfig("road", noise_sigma=6.0)).render(195).image.astype(float) - clean
    dark, bright = noise[clean < 60].std(), noise[clean > 180].std()
    assert dark < 5.0 < 6.0 < bright


@given(seed=st.integers(0, 1000), density=st.floats(0.2, 8.0), at_s=st.floats(0, 60))
@settings(deadline=None, max_examples=60)
def test_simulated_vehicles_of_one_lane_never_touch_at_any_density(seed: int, density: float, at_s: float) -> None:
    vehicles = present(quiet("road", seed=seed, density=density), at_s)
    for one, other in itertools.combinations(vehicles, 2):
        if abs(one.centre(at_s)[1] - other.centre(at_s)[1]) < 10:  # the lanes are 50 px apart
            apart = abs(one.centre(at_s)[0] - other.centre(at_s)[0])
            assert apart > (SIZES_PX[one.label][0] + SIZES_PX[other.label][0]) / 2


def test_only_some_people_of_the_yard_scene_enter_the_restricted_zone() -> None:
    config = quiet("yard", seed=1)
    (left, top), _, (right, bottom), _ = RESTRICTED_ZONE
    inside: dict[int, bool] = {}
    for at_s in np.arange(0.0, 6 * CYCLE_S, 0.2):
        for actor in present(config, float(at_s)):
            x, y = actor.centre(float(at_s))
            within = left < x / BASE_WIDTH_PX < right and top < y / BASE_HEIGHT_PX < bottom
            inside[actor.id] = inside.get(actor.id, False) or within
    assert 3 <= sum(inside.values()) < len(inside) - 3


def test_the_ground_truth_of_a_simulated_scene_can_be_read_after_a_restart_and_a_kill(tmp_path: Path) -> None:
    config = SceneConfig("road", seed=4)
    scene, path = SimulatedScene(config), tmp_path / "truth" / "road.jsonl"
    for epoch in (100, 101):
        writer = TruthWriter(path, "road", config)
        for index in range(40, 60):
            writer.add(scene.render(index), epoch, 10**18 + index)
        writer.close()
    with path.open("a") as file:
        file.write('{"index": 3, "ep')
    frames = list(read_truth(path))
    assert len(frames) == 40
    assert {f.epoch for _, f in frames} == {100, 101}
    assert frames[0][0]["scene"]["seed"] == 4
    assert [len(f.objects) for _, f in frames[:20]] == [len(scene.render(i).objects) for i in range(40, 60)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"kind": "moon"}, "road, yard, conveyor"), ({"kind": "road", "light": "dusk"}, "day or night")],
)
def test_the_error_for_a_wrong_scene_option_lists_the_expected_values(options: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SceneConfig(**options)  # type: ignore[arg-type]
