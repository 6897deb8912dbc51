"""Tables for the terminal: a live table of a running stack, and the tables and summary of a finished run. Pure."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.local.demo.figures import CameraFigures, Figures
from deploy.local.demo.latencies import percentiles_ms

SENSOR_STATES = ("captured", "withheld", "spooled", "delivered", "unaccounted", "duplicates")
"""Columns of the table of readings: the states of a reading, in the order in which a reading passes through them."""

STATES = (*SENSOR_STATES[:4], "classified", "empty", "shed", "dead", "expired_unread", *SENSOR_STATES[4:])
"""Rows of the table of frames: the states of a frame, in the order in which a frame passes through them. Readings are
not classified, so their table has fewer states."""

_SILENT_AFTER_S = 6.0
"""Maximum age of a service's last heartbeat, in seconds: three missed heartbeats. The live table shows a service in
yellow if its last heartbeat is older than ``_SILENT_AFTER_S``."""
_CAMERAS_SHOWN = 4
_CAMERA_WIDTH = 10
"""Maximum width of a camera's column in the table of frames, in characters. Four camera columns fit into 80
characters together with the column of state names and the column of totals."""
_SENSORS_SHOWN = 12
_NOT_BALANCED = Text("NOT balanced: see unaccounted, duplicates and expired_unread", style="red")


def live_table(figures: Figures, now_s: float, left_s: float | None, restarts: dict[str, int]) -> RenderableType:
    """Return the table of cameras, services and totals that is shown while the stack runs."""
    table = Table(title="Sightline", title_justify="left", expand=False)
    for heading in ("camera", "state", "captured", "kept", "spooled", "classified", "empty", "shed", "events"):
        table.add_column(heading, justify="left" if heading in ("camera", "state") else "right")
    table.add_column("seen most", overflow="ellipsis", max_width=32)
    for name, camera in sorted(figures.cameras.items()):
        table.add_row(name, *_camera_cells(camera))
    return Group(table, _services_line(figures, now_s, restarts), _totals_line(figures, now_s, left_s))


def _camera_cells(camera: CameraFigures) -> list[str]:
    status = camera.status
    counts = [status.state, str(status.captured), str(status.kept), str(status.spooled)] if status else ["–"] * 4
    outcomes = [str(camera.outcomes[name]) for name in ("classified", "empty", "shed")]
    most = ", ".join(f"{label} {count}" for label, count in camera.labels.most_common(3))
    return [*counts, *outcomes, str(camera.events), most]


def _services_line(figures: Figures, now_s: float, restarts: dict[str, int]) -> Text:
    line = Text("services  ")
    for name, (at_s, state) in sorted(figures.services.items()):
        healthy = state in ("running", "draining") and now_s - at_s < _SILENT_AFTER_S
        again = f"×{restarts[name]}" if restarts.get(name) else ""
        line.append(f"{name}{again}  ", style="green" if healthy else "yellow")
    return line


def _totals_line(figures: Figures, now_s: float, left_s: float | None) -> Text:
    latency = percentiles_ms(figures.result_ms.recent)
    parts = [
        f"{figures.rate(now_s):.1f} results/s",
        f"latency p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms" if latency else "latency –",
        f"{len(figures.events)} events",
        f"{len(figures.alerts)} alerts",
        f"{sum(1 for state in figures.final.values() if state == 'delivered')} delivered",
        f"{figures.dead_letters} dead letters",
    ]
    if left_s is not None:
        parts.append(f"{left_s:.0f} s left")
    return Text("totals    " + " · ".join(parts))


def balance_table(balance: dict[str, Any]) -> RenderableType:
    """Return the table that counts a run's frames: a row for each state of a frame, a column for each camera.

    With more than four cameras, the table has only the column of totals. The JSON report lists every camera.
    """
    cameras = sorted(balance["cameras"].items())
    shown = cameras if len(cameras) <= _CAMERAS_SHOWN else []
    table = Table(title="Ledger", title_justify="left")
    table.add_column("frames")
    for name, _ in shown:
        table.add_column(name, justify="right", overflow="ellipsis", max_width=_CAMERA_WIDTH)
    table.add_column("total", justify="right", style="bold")
    for state in STATES:
        table.add_row(state, *(_cell(row.get(state, 0)) for _, row in shown), _cell(balance["totals"].get(state, 0)))
    balanced = Text("balanced: every captured frame ended in exactly one state", style="green")
    verdict = balanced if balance["balanced"] else _NOT_BALANCED
    return Group(table, verdict, *_expired(balance), *_left_out(balance, "frames"))


def _expired(balance: dict[str, Any]) -> list[Text]:
    return [Text(f"expired unread: {place}", style="red") for place in balance.get("expired_unread", ())]


def _left_out(balance: dict[str, Any], records: str) -> list[Text]:
    if not balance["left_out"]:
        return []
    names = ", ".join(balance["left_out"])
    return [Text(f"no verdict on {names}: retention has deleted some of their {records}", style="yellow")]


def _cell(value: Any) -> str:
    return str(sum(value.values()) if isinstance(value, dict) else value)


def summary(report: dict[str, Any]) -> str:
    """Return the part of a run's report that follows the tables, as text: events, alerts, latencies, and the
    comparison with the ground truth."""
    latency, deliveries, truth = report["latency_ms"], report["deliveries"], report["truth"]
    lines = [
        f"{report['events']} events, {report['alerts']} alerts: "
        f"{deliveries['delivered']} delivered, {deliveries['dead']} dead",
        f"{sum(report['incidents'].values())} incidents{_by_severity(report['incidents'])}",
        f"{report['frames_per_second']:.1f} results/s",
        f"capture to result   {_latency(latency['capture_to_result'])}",
        f"capture to receipt  {_latency(latency['capture_to_receipt'])}",
    ]
    if truth:
        lines.append(
            f"{truth['line_crossings']} line crossings in truth: {truth['found']} found "
            f"({truth['labels_right']} with the right label), {truth['false']} false"
        )
    return "\n".join([*lines, *report["hints"]])


def _by_severity(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    return f": {parts}" if parts else ""


def _latency(percentiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in percentiles.items()) or "–"


def sensor_table(balance: dict[str, Any]) -> RenderableType:
    """Return the table that counts the readings of a run: a row for each sensor and a row of totals.

    With more than 12 sensors, the table has only the row of totals.
    """
    sensors = sorted(balance["cameras"].items())
    table = Table(
        title="Ledger of readings", title_justify="left", padding=(0, 0)
    )  # wider padding exceeds 80 columns
    table.add_column("sensor", overflow="ellipsis", max_width=16)
    for state in SENSOR_STATES:
        table.add_column(state, justify="right", overflow="ellipsis", max_width=11)
    for name, row in [*(sensors if len(sensors) <= _SENSORS_SHOWN else []), ("total", balance["totals"])]:
        table.add_row(name, *(_cell(row[state]) for state in SENSOR_STATES))
    return Group(table, *([] if balance["balanced"] else [_NOT_BALANCED]), *_left_out(balance, "readings"))
