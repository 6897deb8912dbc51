"""Rule ``behaviour``, which reports a behaviour that a sequence model finds in the movement of a track.

The sequence model gets the boxes of a track over the last 23 s, and no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from ingest.contract.records.base import Name
from ingest.exceptions import ConfigError
from ingest.site.entry import Seconds, Share
from stream.analyse.behaviour.history import Behaviours
from stream.analyse.behaviour.model import BehaviourModel, behaviour_model
from stream.analyse.lasting import LastingWatch
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack
from stream.exceptions import BehaviourModelUnusable


class BehaviourRule(AreaRule):
    """Report once when a behaviour model has found a behaviour of an object with at least the probability
    ``min_probability`` for ``for_s``.

    A reported behaviour ends when its probability is below ``min_probability`` by more than ``hysteresis``. A model
    of ``sightline train behaviour`` knows ``walking``, ``running``, ``loitering`` and ``fallen``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.person.behaviour"

    type: Literal["behaviour"] = "behaviour"
    labels: tuple[str, ...] = ("person",)
    behaviour: Name
    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*@[1-9][0-9]*$")
    min_probability: Share = 0.7
    hysteresis: Share = 0.2
    for_s: Seconds = 1.0

    def loaded(self) -> BehaviourModel:
        """Load the rule's behaviour model, and return the model. Raise ConfigError if the model is missing, or does
        not know the rule's behaviour."""
        try:
            model = behaviour_model(self.model)
        except BehaviourModelUnusable as error:
            raise ConfigError("config", f"{self.key}.model", self.model, f"a usable model: {error}") from None
        if self.behaviour not in model.labels:
            expected = f"a behaviour of the model {self.model}: {', '.join(model.labels)}"
            raise ConfigError("config", f"{self.key}.behaviour", self.behaviour, expected)
        return model

    def require(self) -> None:
        """Raise ConfigError if the rule's model is missing, or does not know the rule's behaviour."""
        self.loaded()

    def watch(self, width: int, height: int) -> BehaviourWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return BehaviourWatch(self, width, height, self.for_s)


class BehaviourWatch(LastingWatch[BehaviourRule]):
    """State of the rule: the recent boxes of each track, and the latest probabilities of the behaviour."""

    PER_TRACK = False

    def __init__(self, rule: BehaviourRule, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height, for_s)
        self._behaviours = Behaviours(rule.loaded(), rule.behaviour)

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame, and return the behaviours to report now."""
        labels = self.rule.labels
        self._behaviours.step(scene, (one for one in scene.tracks if not labels or one.label in labels))
        return super().step(scene)

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track inside the polygon shows the rule's behaviour with a sufficient probability.

        Frames in which the probability is unknown do not end a reported behaviour.
        """
        if not self.covers(track.box.centre):
            return False
        found, reported = self._behaviours.probability(track.name), self.is_reported(track.name)
        if found is None:
            return reported
        return found >= self.rule.min_probability - (self.rule.hysteresis if reported else 0.0)

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a track that has shown the behaviour for ``lasted_s``
        seconds."""
        probability = self._behaviours.probability(track.name) or 0.0
        return SceneHappening(
            track=track,
            summary=f"{track.label} {self.rule.behaviour} in {self.rule.name}, probability {probability:.2f}",
            details={
                "behaviour": self.rule.behaviour,
                "probability": probability,
                "model": self.rule.model,
                "lasted_s": round(lasted_s, 3),
            },
        )

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return that the probability of the behaviour is too low, or how long the behaviour has lasted."""
        found = self._behaviours.probability(track.name)
        if found is None:
            return "has not been seen for long enough to judge its behaviour"
        if found < self.rule.min_probability:
            return f"{self.rule.behaviour} has the probability {found:.2f}, below {self.rule.min_probability:g}"
        return super().unmet(scene, track)

    def resume(self, track: str) -> None:
        """Judge the behaviour of a returning track anew."""
        self._behaviours.forget(track)
        self.interrupt(track)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._behaviours.forget(track)
