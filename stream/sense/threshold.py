"""The threshold rule on windows. Pure."""

from __future__ import annotations

from ingest.contract.records import Event, EventData
from ingest.site import SensorConfig, ThresholdRule
from stream.events import event_id, rfc3339
from stream.sense.windows import Window


class ThresholdWatch:
    """Tells once when a window's mean leaves its bounds, and again only after one has been inside."""

    def __init__(self, rule: ThresholdRule) -> None:
        self._rule = rule
        self._outside = False

    def step(self, window: Window, sensor: str, config: SensorConfig | None) -> Event | None:
        """Take the next closed window and return an event when the mean has just left its bounds."""
        if window.count < self._rule.min_readings:
            return None
        bound = self._broken(window.mean)
        began = bound is not None and not self._outside
        self._outside = bound is not None
        return self._event(window, sensor, config, bound or "") if began else None

    def _broken(self, mean: float) -> str | None:
        if self._rule.above is not None and mean > self._rule.above:
            return f"above {self._rule.above:g}"
        if self._rule.below is not None and mean < self._rule.below:
            return f"below {self._rule.below:g}"
        return None

    def _event(self, window: Window, sensor: str, config: SensorConfig | None, bound: str) -> Event:
        site, unit = (config.site, config.unit) if config else ("", "")
        quantity = config.quantity if config else "value"
        incident = event_id(sensor, self._rule.name, window.start_ns)
        return Event(
            id=event_id(incident, 1),
            source=f"/{site}/{sensor}" if site else f"/{sensor}",
            type="sightline.reading.threshold",
            subject=sensor,
            time=rfc3339(window.start_ns),
            data=EventData(
                incident=incident,
                rule=self._rule.name,
                severity=self._rule.severity,
                site=site,
                sensor=sensor,
                summary=f"{quantity} of {sensor} is {window.mean:.1f} {unit}, {bound}",
                value=window.mean,
                unit=unit,
                captured_ns=window.start_ns,
            ),
        )
