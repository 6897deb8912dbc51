"""What a terminal shows of the sensors' ledger. Pure."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SENSOR_STATES = ("captured", "withheld", "spooled", "delivered", "unaccounted", "duplicates")
"""The columns of the sensors' ledger, in the order of a reading's life."""
_SENSORS_SHOWN = 12


def sensor_table(balance: dict[str, Any]) -> RenderableType:
    """Return the ledger of the readings: a row per sensor, unless there are too many, and the total."""
    sensors = sorted(balance["cameras"].items())
    table = Table(title="Ledger of readings", title_justify="left", padding=(0, 0))  # else it is wider than 80
    table.add_column("sensor", overflow="ellipsis", max_width=16)
    for state in SENSOR_STATES:
        table.add_column(state, justify="right", overflow="ellipsis", max_width=11)
    for name, row in [*(sensors if len(sensors) <= _SENSORS_SHOWN else []), ("total", balance["totals"])]:
        withheld = sum(row["withheld"].values())
        table.add_row(name, *(str(withheld if state == "withheld" else row[state]) for state in SENSOR_STATES))
    said: list[RenderableType] = [table]
    if not balance["balanced"]:
        said.append(Text("NOT balanced: see unaccounted and duplicates", style="red"))
    if balance["left_out"]:
        names = ", ".join(balance["left_out"])
        said.append(Text(f"nothing can be said of {names}: retention has taken their readings", style="yellow"))
    return Group(*said)
