"""Rule ``faults``, which reports faulty products: a streak of faults, or a high share of faults. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.site.entry import PositiveSeconds, Share
from stream.analyse.crossing import CrossingRule, CrossingWatch, TrackCrossing
from stream.analyse.rule import Scene, SceneHappening, SceneTrack


class FaultsRule(CrossingRule):
    """Report once when ``streak`` products in a row, or a share above ``share`` of the products of the last
    ``within_s``, are faulty.

    A product is judged when it crosses the line. A product is faulty if its label is one of ``faulty``. With
    ``attribute``, the rule compares the label from the second-stage model of that name instead. After a product
    without a fault, a new row of ``streak`` faulty products is reported again. A high share of faulty products is
    reported again after the share has fallen to ``share`` or less.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.product.faults"

    type: Literal["faults"] = "faults"
    faulty: tuple[str, ...] = Field(min_length=1)
    attribute: Name | None = None
    streak: int | None = Field(default=None, ge=1)
    share: Share | None = None
    within_s: PositiveSeconds = 300.0
    at_least: int = Field(default=20, ge=1)
    """Minimum number of products within ``within_s`` from which a share is computed."""

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.streak is None) == (self.share is None):
            raise ValueError("expected streak or share, but not both")
        return self

    def is_faulty(self, track: SceneTrack) -> bool:
        """Return whether a product is faulty."""
        if self.attribute is None:
            return track.label in self.faulty
        voted = track.attributes.get(self.attribute)
        return voted is not None and voted.label in self.faulty

    def watch(self, width: int, height: int) -> FaultsWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return FaultsWatch(self, width, height)


class FaultsWatch(CrossingWatch[FaultsRule]):
    """State of the rule: the products of the last ``within_s``, and the present streak of faults."""

    def __init__(self, rule: FaultsRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._products: deque[tuple[int, bool]] = deque()
        self._streak = 0
        self._reported = False
        """Whether the present streak of faults, or the present high share of faults, has been reported."""

    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterator[SceneHappening]:
        """Judge the product that has crossed the line, and return the situation to report now, if any."""
        faulty = self.rule.is_faulty(crossing.track)
        self._streak = self._streak + 1 if faulty else 0
        self._products.append((crossing.at_ns, faulty))
        while crossing.at_ns - self._products[0][0] > self.rule.within_s * 1e9:
            self._products.popleft()
        exceeded = self._is_exceeded()
        if exceeded is False:
            self._reported = False
        elif exceeded and not self._reported and not crossing.quiet:
            self._reported = True
            count, bad = len(self._products), sum(fault for _, fault in self._products)
            found = f"{self._streak} faulty products in a row" if self.rule.streak else f"{bad} of {count} faulty"
            yield SceneHappening(
                track=crossing.track,
                summary=f"{found} at {self.rule.name}",
                details={"streak": self._streak, "faulty": bad, "products": count, "share": round(bad / count, 4)},
            )

    def settle(self, subject: str) -> None:
        """Note that the present streak of faults, or the present high share of faults, has been reported."""
        super().settle(subject)
        self._reported = True

    def _is_exceeded(self) -> bool | None:
        """Return whether the faults exceed ``streak`` or ``share``. Return None if the products so far are too few to
        tell."""
        if self.rule.streak is not None:
            return self._streak >= self.rule.streak or (None if self._streak else False)
        count, bad = len(self._products), sum(fault for _, fault in self._products)
        if self.rule.share is None or count < self.rule.at_least:
            return None
        return bad > self.rule.share * count
