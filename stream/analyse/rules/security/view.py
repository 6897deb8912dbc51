"""Rule ``view``, which reports that a camera shows a black, frozen or tampered picture. Pure.

The edge agent judges the camera's view, and each frame states the agent's judgement. A covered camera therefore
causes an event with a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from ingest.site.entry import Seconds
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening

ViewFault = Literal["black", "frozen", "tampered"]
_WORDS = {"black": "shows a black picture", "frozen": "shows a frozen picture", "tampered": "has been tampered with"}


class ViewRule(CameraRule):
    """Report once when the camera's view has been in one of ``states`` for ``for_s``.

    The agent also waits before it calls a view black, frozen or tampered: the camera's settings ``watch`` define how
    long. The rule reports a bad view again after the view was good.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.camera.view"

    type: Literal["view"] = "view"
    states: tuple[ViewFault, ...] = Field(default=("black", "frozen", "tampered"), min_length=1)
    for_s: Seconds = 0.0

    def watch(self, width: int, height: int) -> ViewWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return ViewWatch(self, width, height)


@dataclass
class _BadView:
    """A period in which the view is bad."""

    frame: str
    since_ns: int
    reported: bool = False


class ViewWatch(RuleWatch[ViewRule]):
    """State of the rule: the present period of a bad view."""

    def __init__(self, rule: ViewRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._bad: _BadView | None = None

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the next frame, and return the camera's bad view to report now, if any."""
        if scene.view not in self.rule.states:
            self._bad = None
            return
        bad = self._bad = self._bad or _BadView(scene.frame, scene.at_ns)
        lasted_s = (scene.at_ns - bad.since_ns) / 1e9
        if not bad.reported and lasted_s >= self.rule.for_s and not self.is_quiet(scene):
            bad.reported = True
            yield SceneHappening(
                occurrence=bad.frame,
                summary=f"camera {self.rule.camera} {_WORDS[scene.view]}",
                details={"view": scene.view, "lasted_s": round(lasted_s, 3)},
            )

    def settle(self, subject: str) -> None:
        """Note that the present bad view has been reported."""
        if self._bad:
            self._bad.reported = True

    def scene_reasons(self, scene: Scene) -> list[str]:
        """Return the state of the view, and why a bad view is not reported now."""
        if self._bad is None:
            return [f"the view is {scene.view or 'good'}"]
        lasted_s = (scene.at_ns - self._bad.since_ns) / 1e9
        state = f"the view has been {scene.view} for {lasted_s:.1f} s"
        if self._bad.reported:
            return [f"already reported: {state}"]
        if lasted_s < self.rule.for_s:
            return [f"{state} of {self.rule.for_s:g} s"]
        return [f"{state}: {self.quiet_reason(scene)}"]
