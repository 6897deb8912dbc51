"""Base classes of the rules over forecasts, and the events of a forecast rule. Pure."""

from __future__ import annotations

import abc
from typing import ClassVar

from ingest.contract.records import Event, Forecast
from ingest.contract.records.base import Name
from ingest.site import CameraConfig, SensorConfig
from ingest.site.entry import Seconds
from stream.events import make_event
from stream.rules import Happening, Rule


class ForecastingRule(Rule):
    """Base of the rules over the forecasts of a measure's value."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("forecast",)

    forecast: Name
    cooldown_s: Seconds = 900.0

    @abc.abstractmethod
    def happening(self, forecast: Forecast) -> Happening | None:
        """Return the situation that the rule finds in a forecast, or None."""


class ForecastReporter:
    """The state of one forecast rule: whether its situation lasts, and the time of its last event."""

    def __init__(self, rule: ForecastingRule) -> None:
        self.rule = rule
        self._lasts = False
        self._reported_ns: int | None = None

    def step(self, forecast: Forecast, source: CameraConfig | SensorConfig | None) -> list[Event]:
        """Process the next forecast, and return an event if the rule's situation begins with this forecast.

        ``source`` is the camera or sensor of the forecast's measure; None for a camera that the site does not have.
        If a situation begins outside of the rule's hours or during its cooldown and still lasts when both have ended,
        the event comes then. A forecast without values does not change the rule's state.
        """
        if not forecast.points:
            return []
        found = self.rule.happening(forecast)
        if found is None:
            self._lasts = False
            return []
        waits = self._reported_ns is not None and forecast.made_ns - self._reported_ns < self.rule.cooldown_s * 1e9
        if self._lasts or waits or not self.rule.in_force(forecast.made_ns):
            return []
        self._lasts = True
        self._reported_ns = forecast.made_ns
        cause = forecast.name, forecast.made_ns
        of_sensor = isinstance(source, SensorConfig)
        event = make_event(
            self.rule,
            found,
            forecast.camera,
            cause,
            forecast.made_ns,
            site=forecast.site,
            camera=None if of_sensor else forecast.camera,
            sensor=forecast.camera if of_sensor else None,
            place=source.place if source else None,
        )
        return [event]
