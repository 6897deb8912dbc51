"""`sightline plan`: the expected costs of a site before its installation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.cli.common import AsJson, friendly
from deploy.cli.output import stdout
from edge_agent.tools.plan import CARD_BYTES, SPREAD, Assumptions, SiteCost, cost_of
from ingest import site


@friendly
def plan(
    file: Annotated[Path, typer.Argument(help="TOML file of the site.")],
    moving: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the time with motion.")] = 0.15,
    outage_hours: Annotated[float, typer.Option(min=0.0, help="Hours of the longest outage of the link.")] = 8.0,
    width: Annotated[int, typer.Option(min=1, help="Width in pixels of cameras that do not set one.")] = 1280,
    height: Annotated[int, typer.Option(min=1, help="Height in pixels of cameras that do not set one.")] = 720,
    as_json: AsJson = False,
) -> None:
    """Estimate the costs of a site: link traffic per day, disk for an outage, flash wear, partitions.

    Picture sizes are estimates: a real scene may need half or twice the estimated bytes.
    """
    assumed = Assumptions(moving_share=moving, outage_s=outage_hours * 3600, width=width, height=height)
    cost = cost_of(site.load(file), assumed)
    if as_json:
        stdout.print_json(data=_report(cost, assumed))
        return
    stdout.print(_table(cost, assumed))
    lasts = f"{cost.card_years:.1f} years" if cost.card_years < 100 else "more than a lifetime"
    stdout.print(f"link       {_size(cost.peak_bytes_per_s)}/s while something moves before every camera")
    stdout.print(f"broker     {_size(cost.bytes_per_day)} of frames are kept for a day, per replica")
    stdout.print(
        f"flash      {_size(cost.written_per_day)} written a day: a {CARD_BYTES / 1e9:.0f} GB card takes {lasts}"
    )
    stdout.print(f"topics     sightline topics create --partitions {cost.partitions}")
    stdout.print(
        f"Assumed: something moves {assumed.moving_share:.0%} of the time. Sizes are estimates, good to a factor of "
        f"{SPREAD:.0f}.",
        soft_wrap=True,
    )


def _table(cost: SiteCost, assumed: Assumptions) -> Table:
    table = Table()
    hours = f"{assumed.outage_s / 3600:g} h"
    for heading in ("camera", "a frame", "frames/s", "a day", f"spool, {hours}", "busy", "spool lasts"):
        table.add_column(heading, justify="left" if heading == "camera" else "right")
    for camera in cost.cameras:
        short = camera.outage_bytes(assumed.outage_s, busy=False) > camera.spool_bytes
        lasts = "for ever" if math.isinf(camera.spool_lasts_s) else f"{camera.spool_lasts_s / 3600:.1f} h"
        table.add_row(
            camera.camera,
            _size(camera.bytes_per_frame),
            f"{camera.mean_fps:.2f}",
            _size(camera.bytes_per_day),
            _size(camera.outage_bytes(assumed.outage_s, busy=False)),
            _size(camera.outage_bytes(assumed.outage_s, busy=True)),
            f"[red]{lasts}[/red]" if short else lasts,
        )
    return table


def _report(cost: SiteCost, assumed: Assumptions) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return None if math.isinf(value) else round(value, 2)

    return {
        "assumed": {"moving_share": assumed.moving_share, "outage_s": assumed.outage_s},
        "cameras": {
            c.camera: {
                "bytes_per_frame": round(c.bytes_per_frame),
                "mean_fps": round(c.mean_fps, 4),
                "busy_fps": round(c.busy_fps, 4),
                "bytes_per_day": round(c.bytes_per_day),
                "outage_bytes": round(c.outage_bytes(assumed.outage_s, busy=False)),
                "outage_bytes_busy": round(c.outage_bytes(assumed.outage_s, busy=True)),
                "spool_bytes": c.spool_bytes,
                "spool_lasts_s": finite(c.spool_lasts_s),
            }
            for c in cost.cameras
        },
        "bytes_per_day": round(cost.bytes_per_day),
        "peak_bytes_per_s": round(cost.peak_bytes_per_s),
        "written_per_day": round(cost.written_per_day),
        "card_years": finite(cost.card_years),
        "partitions": cost.partitions,
    }


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
