"""Messages from a capture child to its agent: length-prefixed msgpack maps over a pipe."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import msgpack

from edge_agent.exceptions import SourceUnusable
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records import WithheldInterval

ViewState = Literal["", "frozen", "black", "tampered"]

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame to keep.

    ``record`` is the encoded frame. ``account`` has the number of frames withheld since the previous kept frame, by
    reason.
    """

    seq: int
    captured_ns: int
    record: bytes
    account: WithheldInterval | None


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """Progress report: the number of frames captured so far, and the problem of the last unusable frame."""

    captured: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ViewCondition:
    """Condition of a camera's view, with the reason of a bad view. An empty ``state`` means a good view."""

    state: ViewState = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A text for the operator's log that reports no failure."""

    text: str


@dataclass(frozen=True, slots=True)
class CaptureEnd:
    """Last message of a capture that has recorded every frame as kept or withheld.

    ``last`` is the last frame number, or -1 if there was no frame. ``tail`` has the number of frames withheld after
    the last kept frame, by reason. ``finished`` means that the source has no more frames. If ``finished`` is false,
    the capture was stopped, or the source failed and the exit status is not 0.
    """

    last: int
    tail: WithheldInterval | None
    finished: bool


Message = KeptFrame | CaptureProgress | ViewCondition | Notice | CaptureEnd
_KINDS: dict[str, type[Message]] = {
    cls.__name__: cls for cls in (KeptFrame, CaptureProgress, ViewCondition, Notice, CaptureEnd)
}


def write_message(pipe: BinaryIO, message: Message) -> None:
    """Write one message. Block while the pipe is full. Raise BrokenPipeError when the agent has exited."""
    fields: dict[str, Any] = {name: getattr(message, name) for name in message.__slots__}
    for name, value in fields.items():
        if isinstance(value, WithheldInterval):
            fields[name] = value.model_dump()
    # file names may contain bytes that are not UTF-8
    data = msgpack.packb([type(message).__name__, fields], unicode_errors="backslashreplace")
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


async def read_message(pipe: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None when the child has exited.

    A message that the child has not finished is discarded. Raise SourceUnusable for a malformed message, for example
    after a decoder has corrupted the child's memory.
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
                fields[name] = WithheldInterval.model_validate(fields[name])
        return _KINDS[kind](**fields)
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise SourceUnusable(f"malformed message from the capture process: {type(error).__name__}") from None
