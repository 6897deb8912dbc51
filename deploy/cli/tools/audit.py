"""`sightline audit`: check that every captured frame and reading has exactly one outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import print_rows, reading_progress, stdout
from deploy.local.demo.table import balance_table, sensor_table
from ingest.kafka.log import Log
from ingest.ledger.auditor import audit as read_and_draw
from ingest.ledger.balance import Balance
from ingest.ledger.states import HOUR_NS
from stream.events import rfc3339

_COUNTS = (
    *("captured", "withheld", "spooled", "delivered", "classified", "empty", "shed", "dead"),
    *("unaccounted", "duplicates"),
)


@friendly
def audit(
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for frames in flight.")] = 30.0,
    by_hour: Annotated[bool, typer.Option("--by-hour", help="Also print each camera and hour.")] = False,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Print the ledger: the final state of every captured frame and reading.

    Exits with 1 if the ledger does not balance.
    """
    with reading_progress("reading the topics") as on_progress:

        async def work(log: Log) -> Balance:
            return await read_and_draw(log, wait_s=wait, by_hour=by_hour, on_progress=on_progress)

        balance = on_log("sightline-audit", kafka, prefix, work)
    values = balance.to_dict()
    if as_json:
        stdout.print_json(data=values)
    else:
        stdout.print(balance_table(values))
        for line in values["totals"]["examples"]:
            stdout.print(f"  {line}")
        sensors = values["sensors"]
        if sensors and (sensors["cameras"] or sensors["left_out"]):
            stdout.print(sensor_table(sensors))
            for line in sensors["totals"]["examples"]:
                stdout.print(f"  {line}")
        if by_hour:
            print_rows(list(_hours(balance)), False, {name: name for name in ("hour", "camera", *_COUNTS)})
    raise typer.Exit(0 if balance.balanced else 1)


def _hours(balance: Balance) -> Iterator[dict[str, Any]]:
    """Yield a row for each camera and hour, the oldest hour first."""
    lines = [(hour, camera, one) for camera, hours in balance.hours.items() for hour, one in hours.items()]
    for hour, camera, counts in sorted(lines, key=lambda line: line[:2]):
        numbers = {name: getattr(counts, name) for name in _COUNTS}
        sums = {name: value.total() for name, value in numbers.items() if isinstance(value, Counter)}
        yield {"hour": rfc3339(hour * HOUR_NS)[:16], "camera": camera, **numbers, **sums}
