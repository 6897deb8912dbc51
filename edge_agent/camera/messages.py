"""What a capture child tells its agent, over a pipe: msgpack maps with a length before each."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack

from edge_agent.exceptions import SourceUnusable
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records import Account

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame to keep: ``record`` is the encoded frame, ``account`` what was withheld before it."""

    seq: int
    captured_ns: int
    record: bytes
    account: Account | None


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """How many frames have been captured so far; ``state`` is ``running`` or ``stalled``."""

    captured: int
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ViewChange:
    """How the view is from now on: ``frozen``, ``black``, ``tampered``, or well again (an empty ``state``)."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What an operator should know, and what is no failure."""

    text: str


@dataclass(frozen=True, slots=True)
class CaptureEnd:
    """The capture is over, and its numbers are complete: ``last`` is the last one, -1 for none.

    ``tail`` is what was withheld after the last kept frame. ``finished`` tells that the source has no more; otherwise
    the capture was told to stop, or the source failed, which the exit status tells.
    """

    last: int
    tail: Account | None
    finished: bool


Message = KeptFrame | CaptureProgress | ViewChange | Notice | CaptureEnd
_KINDS: dict[str, type[Message]] = {
    cls.__name__: cls for cls in (KeptFrame, CaptureProgress, ViewChange, Notice, CaptureEnd)
}


def write_message(pipe: BinaryIO, message: Message) -> None:
    """Write one message. Blocks while the pipe is full; raise BrokenPipeError when the agent has gone."""
    fields: dict[str, Any] = {name: getattr(message, name) for name in message.__slots__}
    for name, value in fields.items():
        if isinstance(value, Account):
            fields[name] = value.model_dump()
    # a file's name need not be text
    data = msgpack.packb([type(message).__name__, fields], unicode_errors="backslashreplace")
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


async def read_message(pipe: asyncio.StreamReader) -> Message | None:
    """Return the next message, None when the child has gone, also in the middle of one.

    Raise SourceUnusable when it says what is no message: a decoder that broke its memory may do so.
    """
    try:
        (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
        if length > MAX_RECORD_BYTES:
            raise SourceUnusable(f"the capture says what is no message: {length} bytes")
        return _message(await pipe.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise SourceUnusable(f"the capture says what is no message: {type(error).__name__}") from None


def _message(data: bytes) -> Message:
    kind, fields = msgpack.unpackb(data)
    for name in ("account", "tail"):
        if fields.get(name):
            fields[name] = Account.model_validate(fields[name])
    return _KINDS[kind](**fields)
