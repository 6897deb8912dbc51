"""Identity switches of people who are hidden for seconds, with and without re-identification by appearance:
``python -m benchmarks.analytics.hidden [--keep]``.

People walk behind a wall, stay there for 2 to 8 s, and come out on one of its sides. The scenes are drawn, with
shadows, flicker and noise, so that the crops differ from frame to frame. The boxes are those of a simulated detector,
and the embeddings those of the shipped model ``appearance``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import typer

from benchmarks.analytics.detector import inexact, result_of
from benchmarks.analytics.identities import IdentityTally
from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.demo.run import SHIPPED_MODELS
from engines import backends
from engines.decoders import FrameRegion
from engines.node.cascade import planned
from engines.node.serving import RepositorySource, SecondModel
from engines.repository.store import Repository
from ingest.contract.crop import CropWindow
from ingest.contract.records import Attribute, Box, Detection, Pixels, Result
from ingest.picture import draw
from ingest.site import AppearanceConfig, SecondModelConfig
from stream.analyse.analyser import Analyser
from stream.analyse.tracking.tracker import ByteTracker

FPS = 5.0
RUN_S = 26.0
WIDTH_PX, HEIGHT_PX = 640, 360
WALL = 250, 390
"""Left and right edge of the wall in px."""
BODY = 40, 100
"""Width and height of a person in px."""
MIN_VISIBLE = 0.4
"""Share of a person that must be visible for the detector to find the person."""
MISSED, EDGE_PX, NOISE, FLICKER = 0.03, 1.5, 5.0, 0.03
"""Share of people that the detector misses, standard deviation of an edge in px, of a pixel's value, and of the
brightness of a frame."""
PLACES_PX = 20.0, 130.0, 240.0
"""Upper edges of the three people's ways in px."""
CLOTHES = {
    "red": (45, 40, 190),
    "blue": (170, 80, 40),
    "green": (60, 140, 60),
    "yellow": (60, 200, 220),
    "white": (225, 225, 225),
    "black": (35, 32, 32),
    "violet": (150, 50, 130),
    "orange": (40, 120, 235),
}
"""Colours of clothes: blue, green and red, 0 to 255."""
DARK = ((60, 45, 40), (35, 32, 32), (110, 70, 45))
"""Colours of trousers."""
_NOISE = np.random.default_rng(1).normal(0.0, NOISE, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.float32)
"""Noise of a picture. Each frame shifts it at random, because drawing new noise would take most of the time."""
LOOK = SecondModelConfig(name="look", model="appearance@1", margin=0.0)
USUAL = AppearanceConfig(second_model="look")


@dataclass(frozen=True)
class Walker:
    """A person: walks to the wall, is hidden for ``hidden_s``, and walks out again at ``back_x``."""

    number: int
    top: float
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    begin_s: float
    speed_px_s: float
    hidden_s: float
    from_left: bool
    turns_back: bool

    def x(self, at_s: float) -> float:
        """Return the left edge of the person in px at a time."""
        near, far = (WALL[0], WALL[1]) if self.from_left else (WALL[1], WALL[0])
        sign = 1.0 if self.from_left else -1.0
        start = 60.0 if self.from_left else WIDTH_PX - 60.0 - BODY[0]
        middle = (near + far - BODY[0]) / 2
        walked = start + sign * self.speed_px_s * (at_s - self.begin_s)
        if sign * (walked - middle) < 0:
            return walked if at_s > self.begin_s else start
        arrived_s = self.begin_s + abs(middle - start) / self.speed_px_s
        waits_s = max(self.hidden_s - 2 * self.behind_s, 0.0)
        if at_s < arrived_s + waits_s:
            return middle
        way = self.speed_px_s * (at_s - arrived_s - waits_s) * (-sign if self.turns_back else sign)
        return float(np.clip(middle + way, 60.0, WIDTH_PX - 60.0 - BODY[0]))

    @property
    def behind_s(self) -> float:
        """Time in seconds from the last sight of the person to the middle of the wall."""
        return ((WALL[1] - WALL[0] - BODY[0]) / 2 + (1 - MIN_VISIBLE) * BODY[0]) / self.speed_px_s

    def visible(self, at_s: float) -> Box | None:
        """Return the visible part of the person; None if the wall hides too much."""
        left = self.x(at_s)
        right, bottom = left + BODY[0], self.top + BODY[1]
        if left < WALL[0]:
            right = min(right, float(WALL[0]))
        elif right > WALL[1]:
            left = max(left, float(WALL[1]))
        else:
            return None
        return Box(left, self.top, right, bottom) if right - left >= MIN_VISIBLE * BODY[0] else None


def walkers(seed: int, kind: str, hidden_s: float) -> list[Walker]:
    """Return the people of a scene.

    ``kind`` is ``different`` (all people wear different colours), ``alike`` (all wear the same), or ``pair`` (two of
    the three wear the same).
    """
    rng = np.random.default_rng([seed, round(hidden_s)])
    names = [str(name) for name in rng.permutation(list(CLOTHES))[: len(PLACES_PX)]]
    if kind == "pair":
        names[1] = names[0]
    people = []
    trousers = [DARK[i] for i in rng.integers(len(DARK), size=len(PLACES_PX))]
    for number, top in enumerate(PLACES_PX):
        same = 0 if kind == "alike" or (kind == "pair" and number == 1) else number
        speed = float(rng.uniform(50.0, 90.0))
        begin = 1.0 + float(rng.uniform(0.0, 6.0))
        colours = CLOTHES[names[same]], trousers[same]
        from_left, turns_back = (bool(side) for side in rng.random(2) < 0.5)
        people.append(Walker(number, top, *colours, begin, speed, hidden_s, from_left, turns_back))
    return people


def rendered(people: Sequence[Walker], at_s: float, rng: np.random.Generator) -> Pixels:
    """Return the picture of a scene at a time, ``(360, 640, 3)`` uint8, BGR."""
    across = np.linspace(0.75, 1.1, WIDTH_PX)[None, :, None]
    picture = np.empty((HEIGHT_PX, WIDTH_PX, 3))
    picture[: HEIGHT_PX // 2], picture[HEIGHT_PX // 2 :] = (150, 160, 165), (95, 115, 135)
    picture[:, ::64] *= 0.9
    for one in people:
        left, top, step = round(one.x(at_s)), round(one.top), round(4 * np.sin(6.0 * at_s + one.number))
        picture[top : top + 18, left + 12 : left + 28] = (120, 150, 195)
        picture[top + 18 : top + 58, left + 4 : left + 36] = one.shirt
        picture[top + 30 : top + 58, left + 4 : left + 12] = np.array(one.shirt) * 0.7
        picture[top + 58 : top + 100, left + 8 + step : left + 19 + step] = one.trousers
        picture[top + 58 : top + 100, left + 21 - step : left + 32 - step] = one.trousers
    picture[:, WALL[0] : WALL[1]] = (90, 100, 110)
    lit = (picture * across * (1.0 + rng.normal(0.0, FLICKER))).astype(np.float32)
    noise = np.roll(_NOISE, tuple(rng.integers(0, HEIGHT_PX, 2)), (0, 1))
    return np.asarray(np.clip(lit + noise, 0, 255), np.uint8)


class Embedder:
    """The shipped model of appearance on ONNX Runtime, as an engine node runs it on crops."""

    def __init__(self) -> None:
        source = RepositorySource(Repository(SHIPPED_MODELS), lambda _: backends.make("onnxruntime"))
        model = source.make(LOOK)
        assert isinstance(model, SecondModel)
        model.open(quickly=True)
        self._model = model

    def described(self, picture: Pixels, found: Sequence[Detection]) -> tuple[Detection, ...]:
        """Return the detections with the embeddings of their crops, or the reasons why there is none."""
        size = picture.shape[1], picture.shape[0]
        plan = planned(LOOK, self._model.model.manifest.input, size, found)
        windows = {n: one for n, one in plan.items() if isinstance(one, CropWindow)}
        rows = [FrameRegion(one.region, *size) for one in windows.values()]
        given = self._model.label(rows, [draw(picture, one, "bgr") for one in windows.values()])
        named = {"name": LOOK.name, "model": LOOK.model}
        changes: dict[int, dict[str, Any]] = {
            n: {"attributes": (Attribute(name=LOOK.name, missing=one),)}
            for n, one in plan.items()
            if isinstance(one, str)
        }
        for n, one in zip(windows, given, strict=True):
            if one:
                changes[n] = {"embeddings": (one[0].embeddings[0].model_copy(update=named),)}
        return tuple(one.model_copy(update=changes.get(n, {})) for n, one in enumerate(found))

    def close(self) -> None:
        """Release the model."""
        self._model.close()


Truth = list[list[tuple[int, Box]]]
"""Number and box of each visible person, by frame."""


def scene(people: Sequence[Walker], embedder: Embedder, seed: int) -> tuple[list[Result], Truth]:
    """Return the results of the frames of a scene, and the true boxes."""
    rng = np.random.default_rng([seed, 9])
    results: list[Result] = []
    truth: Truth = []
    for seq in range(round(RUN_S * FPS)):
        at_s = seq / FPS
        shown = [(one.number, box) for one in people if (box := one.visible(at_s))]
        boxes = [inexact(box, EDGE_PX, rng) for _, box in shown]
        found = [Detection(box=box, label="person", class_id=0, score=0.8) for box in boxes if rng.random() >= MISSED]
        truth.append(shown)
        described = embedder.described(rendered(people, at_s, rng), found)
        results.append(result_of("hall", "people", seq, FPS, (WIDTH_PX, HEIGHT_PX), described))
    return results, truth


def switches(results: Sequence[Result], truth: Truth, appearance: AppearanceConfig | None) -> dict[str, int]:
    """Return the identity switches in a scene, and the number of people whose track got a name that another person
    had before."""
    analyser, tally = Analyser((), None, ByteTracker, appearance=appearance), IdentityTally()
    owners: dict[str, int] = {}
    wrong = 0
    for result, shown in zip(results, truth, strict=True):
        analyser.step(result)
        assert analyser.scene is not None
        tally.add(shown, [(track.name, track.box) for track in analyser.scene.tracks])
        for number, name in tally.present.items():
            wrong += owners.setdefault(name, number) != number
            owners[name] = number
    return {"switches": tally.switches, "exchanged": wrong}


def compared(kinds: Sequence[str], hidden_s: Sequence[float], seeds: range) -> Iterator[dict[str, Any]]:
    """Yield the figures of each kind of scene and time out of sight."""
    embedder = Embedder()
    try:
        for kind in kinds:
            for each_s in hidden_s:
                figures = {"people": len(PLACES_PX) * len(seeds), "without": 0, "with": 0, "exchanged": 0}
                for seed in seeds:
                    found, truth = scene(walkers(seed, kind, each_s), embedder, seed)
                    figures["without"] += switches(found, truth, None)["switches"]
                    again = switches(found, truth, USUAL)
                    figures["with"] += again["switches"]
                    figures["exchanged"] += again["exchanged"]
                yield {"clothes": kind, "hidden_s": each_s, **figures}
    finally:
        embedder.close()


def main(keep_it: KeepIt = False) -> None:
    """Compare, and exit with 1 if people exchange their tracks."""
    rows = []
    for row in compared(("different", "pair", "alike"), (2.0, 4.0, 6.0, 8.0), range(5)):
        log_progress(str(row))
        rows.append(row)
    conclude("hidden", {"scenes": rows}, [str(row) for row in rows if row["exchanged"]], keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
