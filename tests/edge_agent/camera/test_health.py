"""Tests that frozen, black, covered, blurred and turned views are detected, and good views are not reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.camera.health import ViewHealth, small
from edge_agent.camera.messages import ViewCondition
from edge_agent.camera.watch import ViewMemory
from edge_agent.sources.simulated.config import KINDS, LIGHTS, SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from ingest.site import WatchConfig

Picture = npt.NDArray[np.uint8]
LOOKS_PER_S = 2.0
WATCH = WatchConfig(frozen_s=10, black_s=5, tampered_s=5)
BAD_FROM_S, BAD_TO_S = 40.0, 60.0
NOISE = np.random.default_rng(7)


def scene(seconds: float, kind: str = "road", light: str = "day", rain: bool = False) -> Iterator[Picture]:
    for index in range(round(seconds * LOOKS_PER_S)):
        yield frame(index, kind, light, rain)


@lru_cache(maxsize=12)
def renderer(kind: str, light: str, rain: bool) -> SimulatedScene:
    return SimulatedScene(SceneConfig(kind, light=light, rain=rain, width=320, height=180, fps=LOOKS_PER_S))  # type: ignore[arg-type]


@lru_cache(maxsize=2000)
def frame(index: int, kind: str, light: str, rain: bool) -> Picture:
    """Return a grey frame of a scene. Many tests use the same frames, each of 58 KB."""
    picture = cv2.cvtColor(renderer(kind, light, rain).render(index).image, cv2.COLOR_BGR2GRAY).astype(np.uint8)
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="module", autouse=True)
def forget_frames() -> Iterator[None]:
    yield
    frame.cache_clear()


def views(pictures: Iterator[Picture], watch: WatchConfig = WATCH) -> list[tuple[float, ViewCondition]]:
    """Return each change of the view's state, with the time of the change in s."""
    health, found = ViewHealth(watch), [(0.0, ViewCondition())]
    for index, picture in enumerate(pictures):
        view = health.look(small(picture), index / LOOKS_PER_S)
        if view.state != found[-1][1].state:
            found.append((index / LOOKS_PER_S, view))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("rain", [False, True])
def test_a_good_camera_view_is_never_reported_as_bad(kind: str, light: str, rain: bool) -> None:
    assert views(scene(120, kind=kind, light=light, rain=rain)) == [(0.0, ViewCondition())]


@pytest.mark.parametrize("kind", KINDS)
def test_nightfall_is_not_reported_as_a_bad_view(kind: str) -> None:
    """The day picture of a scene fades into its night picture within two minutes."""
    day, night = scene(200, kind=kind, light="day"), scene(200, kind=kind, light="night")
    shares = np.clip((np.arange(round(200 * LOOKS_PER_S)) / LOOKS_PER_S - 40) / 120, 0, 1)
    mixed = (cv2.addWeighted(d, 1 - s, n, s, 0) for d, n, s in zip(day, night, shares.tolist(), strict=True))
    assert views(mixed) == [(0.0, ViewCondition())]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["highway.avi", "car-detection.mp4", "one-by-one-person-detection.mp4"])
def test_real_footage_is_not_reported_as_a_bad_view(name: str, shared_data: Path) -> None:
    with av.open(str(shared_data / name)) as container:
        rate = float(container.streams.video[0].average_rate or 10)
        frames = [f.to_ndarray(format="gray") for i, f in enumerate(container.decode(video=0)) if i % (rate // 2) < 1]
    assert len(frames) > 50
    assert views(iter(frames)) == [(0.0, ViewCondition())]


def noisy(picture: Picture) -> Picture:
    return np.clip(picture + NOISE.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


BAD: dict[str, tuple[str, str, Callable[[Picture], Picture]]] = {
    "black": ("black", "the picture is black", lambda p: np.full_like(p, 16)),
    "covered": ("tampered", "covered", lambda p: noisy(np.full_like(p, 90))),
    "blurred": ("tampered", "out of focus", lambda p: noisy(cv2.GaussianBlur(p, (0, 0), 4))),  # type: ignore[arg-type]
    "turned": ("tampered", "turned", lambda p: np.roll(p, (30, 110), (0, 1))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("fault", BAD)
def test_a_bad_camera_view_changes_the_view_state_only_at_its_begin_and_its_end(
    kind: str, light: str, fault: str
) -> None:
    state, reason, spoil = BAD[fault]
    pictures = (
        spoil(p) if BAD_FROM_S <= i / LOOKS_PER_S < BAD_TO_S else p
        for i, p in enumerate(scene(80, kind=kind, light=light))
    )
    _, (from_s, view), (to_s, after) = views(pictures)
    assert (view.state, after) == (state, ViewCondition())
    assert reason in view.reason
    assert BAD_FROM_S + 5 <= from_s <= BAD_FROM_S + 14
    assert BAD_TO_S <= to_s <= BAD_TO_S + 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_camera_on_a_swaying_mast_is_not_reported_as_tampered(kind: str) -> None:
    swayed = (np.roll(p, (i % 3 - 1, i % 5 - 2), (0, 1)) for i, p in enumerate(scene(90, kind=kind)))
    assert views(swayed) == [(0.0, ViewCondition())]


def frozen(pictures: Iterator[Picture], *, clock: bool) -> Iterator[Picture]:
    held = None
    for index, picture in enumerate(pictures):
        if not BAD_FROM_S <= index / LOOKS_PER_S < BAD_TO_S:
            yield picture
            continue
        held = picture if held is None else held
        shown = held.copy()
        if clock:
            shown[4:12, 8:16] = index * 37 % 256
        yield shown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", [False, True])
def test_a_frozen_picture_with_a_running_clock_overlay_is_detected(kind: str, clock: bool) -> None:
    _, (from_s, view), (to_s, after) = views(frozen(scene(80, kind=kind), clock=clock))
    assert (view.state, from_s) == ("frozen", BAD_FROM_S + 10 + 1 / LOOKS_PER_S)
    assert (after, to_s) == (ViewCondition(), BAD_TO_S)


def test_a_still_scene_with_sensor_noise_is_not_frozen() -> None:
    still = np.random.default_rng(0).integers(40, 200, (180, 320), np.uint8)
    random = np.random.default_rng(1)
    pictures = (np.clip(still + random.normal(0, 0.6, still.shape), 0, 255).astype(np.uint8) for _ in range(200))
    assert views(pictures) == [(0.0, ViewCondition())]


def test_a_lasting_change_of_the_camera_view_is_no_longer_reported_as_tampered_after_relearn_s() -> None:
    pictures = (np.roll(p, 110, 1) if i / LOOKS_PER_S >= 40 else p for i, p in enumerate(scene(160, kind="yard")))
    changes = views(pictures, WatchConfig(tampered_s=5, relearn_s=60))
    assert [view.state for _, view in changes] == ["", "tampered", ""]
    assert 95 <= changes[2][0] <= 110


def test_a_camera_covered_from_the_start_is_reported_as_tampered() -> None:
    pictures = (noisy(np.full((180, 320), 90, np.uint8)) for _ in range(120))
    assert [view.state for _, view in views(pictures)] == ["", "tampered"]


@pytest.mark.parametrize("off", ["frozen_s", "black_s", "tampered_s"])
def test_each_check_of_the_camera_view_may_be_disabled(off: str) -> None:
    watch = WatchConfig.model_validate(WATCH.model_dump() | {off: 0})
    black = (np.zeros((180, 320), np.uint8) for _ in range(200))
    states = {view.state for _, view in views(black, watch)}
    assert off.removesuffix("_s") not in states
    assert len(states) > (off != "tampered_s")


def test_a_change_of_resolution_restarts_learning_of_the_camera_view() -> None:
    first, second = list(scene(40, kind="road")), list(scene(60, kind="yard"))
    taller = (cv2.resize(p, (640, 480)) for p in second)
    assert views(iter([*first, *taller])) == [(0.0, ViewCondition())]  # type: ignore[list-item]


def test_a_camera_turned_while_switched_off_differs_from_its_saved_view_and_is_reported_as_tampered(
    tmp_path: Path,
) -> None:
    first, memory = ViewHealth(WATCH), ViewMemory(tmp_path / "state" / "a.png")
    assert memory.load(900) is None
    for index, picture in enumerate(scene(60, kind="yard")):
        assert first.memory is None or index / LOOKS_PER_S >= 30
        first.look(small(picture), index / LOOKS_PER_S)
    assert first.memory is not None
    memory.save(first.memory)
    for turned, state in ((0, ""), (110, "tampered")):
        again = ViewHealth(WATCH, memory.load(900))
        pictures = (np.roll(p, turned, 1) for p in scene(20, kind="yard"))
        changes = [again.look(small(p), 7000 + i / LOOKS_PER_S).state for i, p in enumerate(pictures)]
        assert changes[-1] == state


def test_an_old_or_damaged_saved_view_is_not_loaded_and_disk_errors_are_ignored(tmp_path: Path) -> None:
    picture = np.full((90, 160), 90, np.uint8)
    memory = ViewMemory(tmp_path / "a.png")
    memory.save(picture)
    assert np.array_equal(memory.load(900), picture)  # type: ignore[arg-type]
    os.utime(tmp_path / "a.png", (1, 1))
    assert memory.load(900) is None
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert memory.load(900) is None
    (tmp_path / "file").write_bytes(b"")
    ViewMemory(tmp_path / "file" / "a.png").save(picture)
