"""Output of commands on the terminal. Services do not import this module, because rich takes memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

stdout = Console()
progress = Console(stderr=True)


def print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool, columns: Mapping[str, str]) -> None:
    """Print rows as JSON, or as a table. ``columns`` maps each row key that the table shows to its column heading."""
    if as_json:
        stdout.print_json(data=list(rows))
        return
    table = Table(*columns.values())
    for row in rows:
        table.add_row(*(_plain(str(row[key])) for key in columns))
    stdout.print(table)


@contextmanager
def step_progress() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Show a progress bar on a terminal while the block runs.

    Yield a function that begins a step of the work with a title and a number of parts. The function that begins a
    step returns the function to call after each part of the step.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress, transient=True, disable=not progress.is_terminal) as bar:

        def begin(title: str, total: int) -> Callable[[], None]:
            task = bar.add_task(title, total=total)
            return lambda: bar.advance(task)

        yield begin


@contextmanager
def reading_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal while the block runs.

    Yield a function to call with the number of finished parts of the work and the number of all parts.
    """
    with Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes in text from an untrusted source."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(text: str) -> Text:
    """Return text from an untrusted source as Rich text without markup, with control characters escaped."""
    return Text(printable(text))
