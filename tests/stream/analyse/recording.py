"""A rule that keeps its scenes, for tests of the frames that rules get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening


class RecordingRule(CameraRule):
    """A rule that keeps its scenes, also those in which a track waited, and reports nothing."""

    EVENT_TYPE: ClassVar[str] = "test.recording"
    SCENES: ClassVar[list[Scene]] = []

    type: Literal["recording"] = "recording"

    def watch(self, width: int, height: int) -> RuleWatch[CameraRule]:
        return RecordingWatch(self, width, height)


class RecordingWatch(RuleWatch[CameraRule]):
    PER_TRACK = True

    def step(self, scene: Scene) -> Iterable[SceneHappening]:
        RecordingRule.SCENES.append(scene)
        return ()
