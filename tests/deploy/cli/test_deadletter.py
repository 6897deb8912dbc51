"""Tests of the list of dead letters: hostile text is printed literally, and letters are not kept in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator

import pytest

from deploy.cli.output import print_rows
from deploy.cli.tools.deadletter import _rows
from ingest.contract.headers import Failure, failure_headers
from ingest.kafka.log import LogRecord
from ingest.kafka.memorylog import MemoryLog

LETTERS, LETTER_BYTES = 80, 1_000_000


class ManyLetters(MemoryLog):
    """A list of dead letters that creates each letter only when the letter is read."""

    async def ends(self, topic: str) -> dict[int, int]:
        return {0: LETTERS}

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        headers = failure_headers(Failure("frames", 0, 0, "prepare", "truncated", "[/red] is no markup"))
        for offset in range(start, stop):
            yield LogRecord(topic, partition, offset, None, bytes(LETTER_BYTES), headers)


async def test_listing_dead_letters_keeps_no_dead_letter_in_memory() -> None:
    tracemalloc.start()
    try:
        rows = await _rows(ManyLetters(), lambda letter: True)
        assert tracemalloc.get_traced_memory()[1] < 5 * LETTER_BYTES
    finally:
        tracemalloc.stop()
    assert [row["offset"] for row in rows] == list(range(LETTERS))


@pytest.mark.parametrize("text", ["[/red]", "[bold", "[link=x]y[/link]", "\\[/red]"])
def test_markup_in_the_message_of_a_dead_letter_is_printed_literally(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows([{"message": text}], False, {"message": "message"})
    assert text in capsys.readouterr().out


def test_control_characters_in_a_dead_letter_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"message": "\x1b[2J\nend"}], False, {"message": "message"})
    assert "\\x1b[2J\\nend" in capsys.readouterr().out
