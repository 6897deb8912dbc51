"""Messages from a capture child to its agent: length-prefixed msgpack maps over a pipe."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import msgpack

from edge_agent.exceptions import SourceUnusable
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records import Account

ViewState = Literal["", "frozen", "black", "tampered"]

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame to keep. ``record`` is the encoded frame; ``account`` counts the frames withheld before it."""

    seq: int
    captured_ns: int
    record: bytes
    account: Account | None


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """Number of frames captured so far, and the reason of the last unusable frame."""

    captured: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ViewCondition:
    """Condition of a camera's view, with its reason. An empty ``state`` is a good view."""

    state: ViewState = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A text for the operator that does not report a failure."""

    text: str


@dataclass(frozen=True, slots=True)
class CaptureEnd:
    """End of a capture with complete frame numbers. ``last`` is the last number, -1 if there was no frame.

    ``tail`` counts the frames withheld after the last kept frame. ``finished`` means that the source has no more
    frames. Otherwise the capture was stopped or the source failed; the exit status shows which.
    """

    last: int
    tail: Account | None
    finished: bool


Message = KeptFrame | CaptureProgress | ViewCondition | Notice | CaptureEnd
_KINDS: dict[str, type[Message]] = {
    cls.__name__: cls for cls in (KeptFrame, CaptureProgress, ViewCondition, Notice, CaptureEnd)
}


def write_message(pipe: BinaryIO, message: Message) -> None:
    """Write one message. Block while the pipe is full. Raise BrokenPipeError when the agent has exited."""
    fields: dict[str, Any] = {name: getattr(message, name) for name in message.__slots__}
    for name, value in fields.items():
        if isinstance(value, Account):
            fields[name] = value.model_dump()
    # file names may contain bytes that are not UTF-8
    data = msgpack.packb([type(message).__name__, fields], unicode_errors="backslashreplace")
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


async def read_message(pipe: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None when the child has exited, even in the middle of a message.

    Raise SourceUnusable for a malformed message. A decoder that corrupts the child's memory may cause one.
    """
    try:
        (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
        if length > MAX_RECORD_BYTES:
            raise SourceUnusable(
                f"malformed message from the capture process: {length} bytes exceeds the limit of {MAX_RECORD_BYTES}"
            )
        kind, fields = msgpack.unpackb(await pipe.readexactly(length))
        for name in ("account", "tail"):
            if fields.get(name):
                fields[name] = Account.model_validate(fields[name])
        return _KINDS[kind](**fields)
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise SourceUnusable(f"malformed message from the capture process: {type(error).__name__}") from None
