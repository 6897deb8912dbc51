"""`sightline models compare`: agreement of a candidate model with the served model of a pipeline."""

from __future__ import annotations

import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import print_rows, printable, stdout
from ingest.contract.codec import decode
from ingest.contract.records import ShadowDifference, ShadowRecord
from ingest.contract.topics import SHADOW
from ingest.exceptions import CodecError, ConfigError
from ingest.kafka.log import Log

if TYPE_CHECKING:
    from engines.shadow.report import ShadowHistory, ShadowReport

_COLUMNS = {
    "label": "label",
    "served": "served model",
    "found": "found",
    "missed": "missed",
    "relabelled": "other label",
    "extra": "extra",
}


@friendly
def compare(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline with the key `shadow`.")],
    candidate: Annotated[
        str, typer.Option(help="Candidate as NAME@VERSION. Default: the latest.", show_default=False)
    ] = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Compare a candidate model with the served model, on the frames that both models have classified.

    Print the agreement, the objects of each label that the candidate found and missed, and the frames with the
    largest differences. The comparisons come from the topic `shadow`, which keeps records for 7 days.
    """
    history = on_log("sightline-compare", kafka, prefix, lambda log: read_history(log, pipeline))
    known = history.candidates()
    if not known:
        raise ConfigError(
            "models compare", "PIPELINE", pipeline, "a pipeline whose `shadow` model has classified frames"
        )
    if candidate and candidate not in known:
        raise ConfigError("models compare", "--candidate", candidate, f"one of {', '.join(known)}")
    report = history.report(candidate or known[-1])
    if as_json:
        stdout.print_json(data=report.as_json())
    else:
        _print(report)


async def read_history(log: Log, pipeline: str) -> ShadowHistory:
    """Read all comparisons of a pipeline. Report unreadable records on standard error. Raise LogUnavailable."""
    from engines.shadow.report import ShadowHistory

    history = ShadowHistory(pipeline)
    begin, end = (await log.beginnings(SHADOW))[0], (await log.ends(SHADOW))[0]
    async with aclosing(log.read(SHADOW, 0, begin, end)) as records:
        async for record in records:
            try:
                history.add(decode(ShadowRecord, record.value))
            except CodecError as error:
                sys.stderr.write(f"{SHADOW}[0]@{record.offset} cannot be read: {error}\n")
    return history


def _print(report: ShadowReport) -> None:
    def line(text: str) -> None:
        stdout.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    beside = f" beside {report.served}" if report.served else ""
    line(f"{report.pipeline}: {report.candidate}{beside}")
    if report.off:
        line(f"switched off: {report.off}")
    if not report.frames:
        return
    line(
        f"frames {report.frames}, agreement {100 * report.agreement:.1f} %, "
        f"scores that differ {report.score_differences}"
    )
    rows = [
        {
            "label": label,
            "served": counts.found + counts.missed + counts.relabelled,
            **asdict(counts),
        }
        for label, counts in sorted(report.labels.items())
    ]
    print_rows(rows, False, _COLUMNS)
    for weight, record in report.largest():
        line(f"{record.frame} {weight:.2f}: {'; '.join(map(_text, record.differences))}")


def _text(difference: ShadowDifference) -> str:
    own = f"{difference.form} {difference.label} {difference.score:.2f}"
    if difference.form not in ("label", "score"):
        return own
    return f"{own} → {difference.other_label} {difference.other_score:.2f}"
