"""`sightline classify`: send picture files through a pipeline, and print the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import printable, progress, stdout
from deploy.cli.tools.results import detection_text
from deploy.local.demo.table import balance_table

if TYPE_CHECKING:
    from deploy.classify.session import Answer, ClassifyOutcome

_MAX_NAME_CHARS = 48
_OUTCOME_CHARS = 10
"""Width of the table's column for the outcome, in characters. The column for the picture is limited by
``_MAX_NAME_CHARS``, and the last column, for the labels, has no limit."""
_STYLES = {"classified": "", "empty": "yellow", "shed": "yellow"}


@friendly
def classify(
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE", help="Picture files, and folders of them.", show_default=False),
    ],
    pipeline: Annotated[str, typer.Option(help="Pipeline of the site that classifies the pictures.")],
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Give up after this number of seconds without an answer.")
    ] = 60.0,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Send pictures through the stack as if a camera had taken them, and print each result as it arrives.

    Exits with 0 if every picture was classified and the ledger balances, else with 1.
    """
    from deploy.classify.pictures import find_pictures
    from deploy.classify.session import classify as run_classify

    found = find_pictures(pictures)
    width = min(_MAX_NAME_CHARS, max(len(printable(str(path))) for path in found))
    console = progress if as_json else stdout
    is_hidden = not console.is_terminal or (as_json and sys.stdout.isatty())
    columns = (TextColumn("classifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=is_hidden, redirect_stdout=False) as bar:
        task = bar.add_task("", total=len(found))

        def on_answer(answer: Answer) -> None:
            if as_json:
                sys.stdout.write(json.dumps(to_json(answer)) + "\n")
                sys.stdout.flush()
            else:
                stdout.print(_row(answer, width), soft_wrap=True)
            bar.advance(task)

        outcome = on_log(
            "sightline-classify",
            kafka,
            prefix,
            lambda log: run_classify(log, found, pipeline, timeout_s=timeout, on_answer=on_answer),
        )
    _print_ledger(outcome, as_json)
    raise typer.Exit(0 if outcome.complete and outcome.balance.balanced else 1)


def to_json(answer: Answer) -> dict[str, Any]:
    """Return the answer for one picture as values for JSON, with the same keys for every outcome.

    Boxes are in pixels of the picture.
    """
    result = answer.result
    return {
        "picture": str(answer.picture),
        "outcome": answer.outcome,
        "reason": answer.reason,
        "frame": str(answer.frame) if answer.frame else None,
        "model": result.model if result else "",
        "latency_ms": round((result.finished_ns - result.captured_ns) / 1e6, 1) if result else None,
        "detections": [
            {
                "label": one.label,
                "score": round(one.score, 4),
                "box": list(one.box),
                "attributes": [each.model_dump() for each in one.attributes],
            }
            for one in result.detections
        ]
        if result
        else [],
    }


def _row(answer: Answer, width: int) -> Text:
    name = printable(str(answer.picture))
    name = name if len(name) <= width else f"…{name[1 - width :]}"
    labels = ", ".join(map(detection_text, answer.result.detections)) if answer.result else ""
    found = printable(labels or answer.reason or "nothing found")
    return Text(f"{name:<{width}}  {answer.outcome:<{_OUTCOME_CHARS}}  {found}", _STYLES.get(answer.outcome, "red"))


def _print_ledger(outcome: ClassifyOutcome, as_json: bool) -> None:
    balance = outcome.balance.to_dict()
    if as_json:
        ledger = {"stream": outcome.stream, "balanced": balance["balanced"], **balance["totals"]}
        sys.stdout.write(json.dumps({"ledger": ledger}) + "\n")
        return
    stdout.print(balance_table(balance | {"cameras": {}}))
    for line in balance["totals"]["examples"]:
        stdout.print(f"  {line}")
    stdout.print(f"stream {outcome.stream}")
