"""The report of a backtest as one HTML page, beside the pictures of the gained and lost events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from engines.repository.backtests import BacktestRecord

_STYLE = """body{font:15px system-ui,sans-serif;margin:2rem;max-width:75rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.3rem .8rem;border-bottom:1px solid #d8dee4;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.passed{color:#116329}.failed{color:#a40e26}
figure{display:inline-block;margin:.5rem;width:20rem;vertical-align:top}img{width:100%}figcaption{font-size:13px}"""


def page(record: BacktestRecord, rules: Iterable[Mapping[str, Any]], pictures: Mapping[str, str]) -> str:
    """Return the HTML page about a backtest. ``pictures`` has the path of each event's picture by the event's id."""
    figures, rules = record.figures, list(rules)
    verdict = '<p class="passed">passed</p>' if record.passed else _reasons(record.reasons)
    frame = figures["frame_ms"]
    facts = [
        ("period", f"{record.since} to {record.until}"),
        ("cameras", ", ".join(record.cameras)),
        ("live model", ", ".join(f"{model} ({count} frames)" for model, count in record.served.items()) or "none"),
        ("frames", f"{figures['frames']}, {figures['compared']} compared, {figures['failed']} failed"),
        ("agreement", f"{figures['agreement']:.1%} of the live objects"),
        ("speed", f"{figures['speed']:.1f} times real time"),
        ("cost", f"{figures['cpu_ms_per_frame']:.2f} ms of CPU time per frame"),
        ("time of a frame", f"mean {frame['mean']:.2f} ms, 95 % up to {frame['p95']:.2f} ms"),
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            f"<title>Backtest of {escape(record.model)}</title><style>{_STYLE}</style>",
            f"<h1>Backtest of {escape(record.model)}</h1>{verdict}",
            _table(("", ""), facts),
            "<h2>Events by rule</h2>",
            _table(
                ("rule", "equal", "moved", "gained", "lost"),
                [(one["rule"], one["equal"], one["moved"], one["gained"], one["lost"]) for one in rules],
            ),
            "<h2>Objects by label</h2>",
            _table(
                ("label", "found", "missed", "other label", "extra"),
                [
                    (label, one["found"], one["missed"], one["relabelled"], one["extra"])
                    for label, one in figures["labels"].items()
                ],
            ),
            "<h2>Time of one frame by stage, in ms</h2>",
            _table(
                ("stage", "mean", "median", "95 %"),
                [(stage, one["mean"], one["p50"], one["p95"]) for stage, one in figures["stages_ms"].items()],
            ),
            _events("Gained events", "gained_events", rules, pictures),
            _events("Lost events", "lost_events", rules, pictures),
        ]
    )


def _reasons(reasons: Iterable[str]) -> str:
    return f'<ul class="failed">{"".join(f"<li>{escape(one)}</li>" for one in reasons)}</ul>'


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    kind = ' class="n"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _events(title: str, key: str, rules: Iterable[Mapping[str, Any]], pictures: Mapping[str, str]) -> str:
    figures = [_figure(one["rule"], event, pictures.get(event["id"])) for one in rules for event in one[key]]
    return f"<h2>{title}</h2>{''.join(figures) or '<p>none</p>'}"


def _figure(rule: str, event: Mapping[str, Any], picture: str | None) -> str:
    image = f'<img src="{escape(picture)}" alt="">' if picture else "<p>The picture has expired.</p>"
    caption = f"{escape(rule)}: {escape(event['summary'])}<br>{escape(event['time'])} {escape(event['frame'])}"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
