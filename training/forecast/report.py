"""The report of a forecast's training: figures as JSON, and one HTML file with a table and plots."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from training.forecast.dataset import Series
from training.forecast.evaluate import ORDER, TIE, ForecastOptions, Judged
from training.forecast.table import day_of, described

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:.3rem .8rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr.winner{font-weight:600}img{max-width:100%}"
)


def figures(series: Series, options: ForecastOptions, judged: Judged) -> dict[str, Any]:
    """Return the figures of a forecast training, in the unit of the series. Errors are given for the ``judged``
    numbers of steps ahead."""
    return {
        **described(series),
        "test_days": options.test_days,
        "test_first_day": day_of(judged.test_first, series.step_s),
        "test_steps": int((~np.isnan(judged.values)).sum()),
        "winner": judged.winner,
        "candidates": {
            kind: {
                "validation_mae": {str(h): round(judged.validation[kind][h].mae, 4) for h in options.judged},
                "test_mae": {str(h): round(judged.test[kind][h].mae, 4) for h in options.judged},
                "test_rmse": {str(h): round(judged.test[kind][h].rmse, 4) for h in options.judged},
            }
            for kind in ORDER
            if kind in judged.test
        },
        "intervals": {
            "level": options.level,
            "covered": {str(h): round(judged.intervals[h].covered, 4) for h in options.judged},
            "mean_width": {str(h): round(judged.intervals[h].width, 3) for h in options.judged},
        },
        "drift_limit": judged.spec.drift_limit,
    }


def page(found: Mapping[str, Any], options: ForecastOptions, judged: Judged, step_s: int) -> str:
    """Return the report of a forecast training as one HTML file without references to other files."""
    judged_keys = [str(h) for h in options.judged]
    columns = [f"{h} step{'s' if h > 1 else ''}" for h in options.judged]
    rows = "\n".join(
        f"<tr{' class=winner' if kind == judged.winner else ''}><td>{kind}</td>"
        + "".join(f"<td>{one['validation_mae'][h]:.2f}</td>" for h in judged_keys)
        + "".join(f"<td>{one['test_mae'][h]:.2f} / {one['test_rmse'][h]:.2f}</td>" for h in judged_keys)
        + "</tr>"
        for kind, one in found["candidates"].items()
    )
    intervals = "\n".join(
        f"<tr><td>{h}</td><td>{100 * found['intervals']['covered'][str(h)]:.1f} %</td>"
        f"<td>{found['intervals']['mean_width'][str(h)]:.1f}</td></tr>"
        for h in options.judged
    )
    name = html.escape(str(found["series"]))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Forecast of {name}</title><style>{_STYLE}</style></head><body>
<h1>Forecast of {name}</h1>
<p>{found["observed_days"]} observed days from {found["first_day"]} to {found["last_day"]}, in steps of {step_s} s.
The last {found["test_days"]} days, from {found["test_first_day"]} on, are the test. No candidate was trained
with them,
or chosen by them.</p>
<h2>Candidates</h2>
<p>Mean absolute error in the validation, and mean absolute error / root mean square error on the test days. Winner:
<b>{judged.winner}</b>. The candidate with the lowest mean error over the horizons in the validation wins; within
{100 * TIE:g} %, the simplest candidate wins. The table begins with the simplest one.</p>
<table><tr><th rowspan="2">Candidate</th><th colspan="{len(columns)}">Validation</th>
<th colspan="{len(columns)}">Test</th></tr><tr>{"".join(f"<th>{one}</th>" for one in columns * 2)}</tr>
{rows}</table>
<h2>Intervals</h2>
<p>Share of the test values within the intervals of {100 * options.level:g} % of the winner, and mean width.</p>
<table><tr><th>Steps ahead</th><th>Covered</th><th>Mean width</th></tr>
{intervals}</table>
<h2>Plots</h2>
<img alt="Error by horizon" src="{_picture(_draw_errors(judged, options))}">
<img alt="Forecasts and values" src="{_picture(_draw_day(judged, options, step_s))}">
<p>Written on {datetime.now(UTC).date().isoformat()} by sightline train forecast.</p></body></html>
"""


def _draw_errors(judged: Judged, options: ForecastOptions) -> Any:
    figure, axes = _figure()
    horizons = range(1, options.horizons + 1)
    for kind in ORDER:
        if kind in judged.test:
            axes.plot(horizons, [judged.test[kind][h].mae for h in horizons], marker=".", label=kind)
    axes.set(xlabel="steps ahead", ylabel="mean absolute error on the test days")
    axes.legend()
    return figure


def _draw_day(judged: Judged, options: ForecastOptions, step_s: int) -> Any:
    """Draw the last test day, with the winner's forecast one step ahead and its prediction interval."""
    figure, axes = _figure()
    day = slice(-86_400 // step_s, None)
    hours = np.arange(len(judged.values[day])) * step_s / 3600
    found = judged.intervals[1]
    axes.fill_between(
        hours, found.lower[day], found.upper[day], alpha=0.25, label=f"{100 * options.level:g} % interval"
    )
    axes.plot(hours, judged.forecasts[1][day], label="forecast, one step ahead")
    axes.plot(hours, judged.values[day], ".", markersize=3, label="measured")
    axes.set(xlabel="hours since the begin of the last test day", ylabel="value of a step")
    axes.legend()
    return figure


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    return figure, figure.add_subplot()


def _picture(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
