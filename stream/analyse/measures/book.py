"""The per-minute records of the measures of one partition, and the corrections of these records. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records.measure import Measure, MinuteTally
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.site.measure import MeasureConfig
from stream.analyse.measures.meters import values
from stream.analyse.measures.minute import ClosedMinute, merged
from stream.events import event_id

KEPT_MINUTES = 20_000
"""Maximum number of per-minute records of a partition that can be corrected; each takes about 1 kB as JSON."""
KEPT_S = 2 * 3600.0
"""Time span in seconds of the per-minute records that a new owner of a partition reads back. A record older than two
hours cannot be corrected after a restart: late frames of its minute give a new record that counts only these frames.
"""


class MeasureBook:
    """The latest record of each measure and minute.

    A record has separate counts for each lane (live or late). If a restarted process completes the same counts again,
    with the same last frame, the book ignores them. Further counts of the same minute, such as those of late frames,
    are added, and the corrected record is written again.
    """

    def __init__(self, written: Iterable[LogRecord] = ()) -> None:
        self._latest: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        """The latest records as JSON, which take a quarter of the memory of decoded records."""
        for record in written:
            try:
                measure = decode_json(Measure, record.value)
            except CodecError:
                continue
            if not measure.parts:
                continue  # a measure that the stage `sense` writes
            known = self._known(measure.name, measure.start_ns)
            if known is None or known.revision <= measure.revision:
                self._keep(measure)

    def add(self, minute: ClosedMinute, lane: str, config: MeasureConfig, site: str) -> Measure | None:
        """Add the counts of a completed minute in one lane, and return the record to write; None for a repetition."""
        before = self._known(config.name, minute.start_ns)
        parts = dict(before.parts) if before else {}
        part, (closed_by,) = parts.get(lane), minute.tally.closed_by
        if part and closed_by in part.closed_by:
            return None
        parts[lane] = _joined(part, minute.tally) if part else minute.tally
        revision = sum(len(one.closed_by) for one in parts.values()) - 1
        total = merged(parts)
        measure = Measure(
            id=event_id("measure", config.camera, config.name, minute.start_ns, revision),
            name=config.name,
            type=config.type,
            site=site,
            camera=config.camera,
            pipeline=config.pipeline,
            start_ns=minute.start_ns,
            revision=revision,
            corrected=revision > 0,
            observed=round(min(total.observed_s / 60.0, 1.0), 4),
            values=values(total, config),
            histograms=total.histograms,
            parts=parts,
        )
        self._keep(measure)
        return measure

    def _known(self, name: str, start_ns: int) -> Measure | None:
        value = self._latest.get((name, start_ns))
        return decode_json(Measure, value, len(value)) if value else None

    def _keep(self, measure: Measure) -> None:
        key = measure.name, measure.start_ns
        self._latest[key] = encode_json(measure)
        self._latest.move_to_end(key)
        if len(self._latest) > KEPT_MINUTES:
            self._latest.popitem(last=False)


def _joined(before: MinuteTally, more: MinuteTally) -> MinuteTally:
    total = merged({"before": before, "more": more})
    return total.model_copy(update={"closed_by": (*before.closed_by, *more.closed_by)})
