"""The processor of one partition of the topic ``measures``: forecasts, their skill, the events of forecast rules, and
the occupancy of places."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Event, Forecast, Measure
from ingest.contract.topics import EVENTS, FORECASTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.site import CameraConfig, ForecastConfig, MeasureConfig, SensorConfig
from ingest.site.topic.view import Config
from stream.exceptions import ForecastModelUnusable
from stream.metrics import ForecastMetrics
from stream.readback import HistoryPoint, tail, written_from, written_since
from stream.runner.processor import ParkingProcessor, Work
from stream.sense.forecast.forecaster import Forecaster
from stream.sense.forecast.model import ForecastModel, ModelSource
from stream.sense.forecast.rule import ForecastingRule, ForecastReporter
from stream.sense.forecast.steps import MinuteValue, is_late
from stream.sense.minutes import SENSOR
from stream.sense.occupancy.processor import OCCUPANCY, OccupancyStep
from stream.written import CLOCKS_MS, written_ids

_log = logs.get("stream.forecast")

Emitted = tuple[list[Forecast], list[Event]]


class ForecastProcessor(ParkingProcessor[tuple[Emitted, list[Outgoing]]]):
    """The processor of one partition of the topic ``measures``. ``config`` returns the site's present configuration.

    ``models`` returns the present model version for a model name of the configuration. When a version is promoted,
    the forecaster is rebuilt with the promoted version from the minutes in memory.
    """

    def __init__(
        self,
        stage: str,
        config: Callable[[], Config],
        models: ModelSource,
        event_partitions: int,
        forecast_partitions: int,
        metrics: ForecastMetrics,
    ) -> None:
        super().__init__(stage)
        self._in_force, self._models, self._metrics = config, models, metrics
        self._event_partitions, self._forecast_partitions = event_partitions, forecast_partitions
        self._series: dict[str, Forecaster] = {}
        self._minutes: defaultdict[str, deque[MinuteValue]] = defaultdict(deque)
        """The latest minutes of each forecast's series, in the order of the log."""
        self._sources: dict[str, tuple[str, str]] = {}
        """Measure and value of each forecast."""
        self._reporters: dict[str, ForecastReporter] = {}
        self._unusable: dict[str, str] = {}
        self._occupancy = OccupancyStep(config, event_partitions)
        self._written: frozenset[str] = frozenset()
        self._use(config())

    async def read_back(self, tp: TopicPartition, position: int, log: Log) -> None:
        """Rebuild the state from the measures before ``position``. Raise LogUnavailable."""
        await self._occupancy.read_back(tp, position, log)
        if not self._configs:
            return
        past = await tail(log, tp, position, self._history_point, max(self._wanted_s.values(), default=0.0))
        since_ms = await written_from(log, tp, position, past)
        if since_ms is None:
            return
        sources = self._sources_of(past)
        cameras = {one.camera for one in self._config.of(MeasureConfig) if one.name in self._configs} | sources.keys()
        places = {sources.get(name) or self._place(self._cameras.get(name), name) for name in cameras}
        events = await written_ids(log, places, self._event_partitions, since_ms)
        self._written = events | await self._written_forecasts(cameras, since_ms, log)
        await asyncio.to_thread(self._replay, past)

    def _sources_of(self, past: Sequence[LogRecord]) -> dict[str, str]:
        """Return the place of each camera and sensor of the past measures, and of each measured sensor, by name."""
        found = {one.camera: self._place(self._source(one), one.camera) for one in self._measures_of(past)}
        measured = [one for one in self._sensors.values() if one.measure and one.name in self._configs]
        return found | {one.name: one.full_place for one in measured}

    @staticmethod
    def _place(source: CameraConfig | SensorConfig | None, name: str) -> str:
        return source.full_place if source else name

    async def _written_forecasts(self, cameras: Collection[str], since_ms: int, log: Log) -> frozenset[str]:
        """Return the ids of the forecasts that were written for ``cameras`` since ``since_ms``."""
        partitions = {partition_for(camera, self._forecast_partitions) for camera in cameras}
        found: set[str] = set()
        for partition in sorted(partitions):
            for record in await written_since(log, TopicPartition(FORECASTS, partition), since_ms - CLOCKS_MS):
                try:
                    found.add(decode_json(Forecast, record.value).id)
                except CodecError:
                    continue
        return frozenset(found)

    def _replay(self, past: Sequence[LogRecord]) -> None:
        for measure in self._measures_of(past):
            self._step(measure, live=False)

    def _measures_of(self, records: Sequence[LogRecord]) -> list[Measure]:
        found = []
        for record in records:
            try:
                measure = decode_json(Measure, record.value)
            except CodecError:
                continue
            if measure.name in self._configs:
                found.append(measure)
        return found

    def _history_point(self, record: LogRecord) -> HistoryPoint | None:
        try:
            measure = decode_json(Measure, record.value)
        except CodecError:
            return None
        wanted_s = self._wanted_s.get(measure.name)
        # A late minute may be older than the history: it must not end the search for the minutes in time.
        key = f"{measure.name} late" if is_late(measure) else measure.name
        return None if wanted_s is None else HistoryPoint(key, 0, measure.start_ns, wanted_s)

    def _decide(self, record: LogRecord) -> tuple[Emitted, list[Outgoing]]:
        config = self._in_force()
        if config is not self._config:
            self._use(config)
        if not self._configs and not self._occupancy.places:
            return ([], []), []
        measure = decode_json(Measure, record.value)
        if measure.type == OCCUPANCY:
            return ([], []), []
        return self._step(measure), self._occupancy.step(measure, record.partition)

    def _emit(self, record: LogRecord, outcome: tuple[Emitted, list[Outgoing]]) -> Sequence[Work]:
        (forecasts, events), occupancy = outcome
        records = [self._outgoing(one) for one in forecasts if one.id not in self._written]
        records += [self._event(one) for one in events if one.id not in self._written]
        return [Work((*records, *occupancy), (record.offset,))]

    def _step(self, measure: Measure, *, live: bool = True) -> Emitted:
        """Process a minute of a measure, and return the forecasts and events that the minute causes. The metrics are
        updated for a new minute only."""
        configs = self._configs.get(measure.name, ())
        if not configs:
            return [], []
        forecasts, events = [], []
        for config in configs:
            minute = MinuteValue.of(measure, config.value)
            forecaster = self._forecaster(config, measure)
            self._keep(config, minute)
            found = forecaster.add(minute, measure.site, measure.camera) if forecaster else None
            if found is None:
                continue
            forecasts.append(found)
            for rule in self._rules[config.name]:
                events += self._reporters[rule.name].step(found, self._source(measure))
            if live:
                self._metrics.note(found)
        return forecasts, events

    def _source(self, measure: Measure) -> CameraConfig | SensorConfig | None:
        """Return the configured camera or sensor of a measure."""
        return (self._sensors if measure.type == SENSOR else self._cameras).get(measure.camera)

    def _keep(self, config: ForecastConfig, minute: MinuteValue) -> None:
        """Keep a minute of a forecast's series in memory, and drop the minutes that are older than the forecast
        needs."""
        minutes, most = self._minutes[config.name], self._wanted_s[config.measure] / 60
        minutes.append(minute)
        while len(minutes) > most:
            minutes.popleft()

    def _forecaster(self, config: ForecastConfig, measure: Measure) -> Forecaster | None:
        """Return the forecaster of a configured forecast with the present model version; the earlier forecaster or
        None if the model is unusable."""
        known = self._series.get(config.name)
        model = self._model(config)
        if model is None:
            return known
        if known is None or known.model.id != model.id or known.config != config:
            wanted_s = Forecaster.history_s(model)
            self._wanted_s[config.measure] = max(self._wanted_s[config.measure], wanted_s)
            known = self._series[config.name] = Forecaster(config, model)
            for minute in self._minutes[config.name]:
                known.add(minute, measure.site, measure.camera)
        return known

    def _model(self, config: ForecastConfig) -> ForecastModel | None:
        try:
            model = self._models(config.model)
        except ForecastModelUnusable as error:
            if self._unusable.get(config.name) != str(error):
                self._unusable[config.name] = str(error)
                _log.error("forecast_model_unusable", forecast=config.name, error=str(error))
            return None
        self._unusable.pop(config.name, None)
        return model

    def _use(self, config: Config) -> None:
        """Use another configuration. Unchanged forecasts and rules keep their state."""
        self._config = config
        self._configs: defaultdict[str, list[ForecastConfig]] = defaultdict(list)
        self._wanted_s: dict[str, float] = {}
        for one in config.of(ForecastConfig):
            self._configs[one.measure].append(one)
            model = self._model(one)
            wanted_s = Forecaster.history_s(model) if model else 0.0
            self._wanted_s[one.measure] = max(self._wanted_s.get(one.measure, 0.0), wanted_s)
        self._cameras: Mapping[str, CameraConfig] = {one.name: one for one in config.of(CameraConfig)}
        self._sensors: Mapping[str, SensorConfig] = {one.name: one for one in config.of(SensorConfig)}
        self._rules: defaultdict[str, list[ForecastingRule]] = defaultdict(list)
        before, self._reporters = self._reporters, {}
        for rule in config.of(ForecastingRule):  # type: ignore[type-abstract]
            self._rules[rule.forecast].append(rule)
            known = before.get(rule.name)
            self._reporters[rule.name] = known if known and known.rule.same_as(rule) else ForecastReporter(rule)
        sources = {one.name: (one.measure, one.value) for one in config.of(ForecastConfig)}
        for name in [name for name in self._sources if sources.get(name) != self._sources[name]]:
            self._minutes.pop(name, None)
            if self._series.pop(name, None):
                self._metrics.forget(name)
        self._sources = sources

    def _outgoing(self, forecast: Forecast) -> Outgoing:
        partition = partition_for(forecast.camera, self._forecast_partitions)
        return Outgoing(FORECASTS, partition, encode_json(forecast), key=forecast.name.encode())

    def _event(self, event: Event) -> Outgoing:
        partition = partition_for(event.place, self._event_partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=event.subject.encode(), headers=h.CLOUD_EVENT)
