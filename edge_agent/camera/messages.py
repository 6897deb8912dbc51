"""Messages from a capture process to the agent: length-prefixed msgpack maps over a pipe."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgpack

from edge_agent.exceptions import SourceUnusable
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records import WithheldInterval

if TYPE_CHECKING:  # a capture process starts sooner without asyncio
    import asyncio

ViewState = Literal["", "frozen", "black", "tampered"]

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """Message with a frame that the agent must store and send.

    ``record`` contains the frame as an encoded Kafka record. ``account`` counts the frames withheld since the
    previous kept frame, by reason; None if no frame was withheld.
    """

    seq: int
    captured_ns: int
    record: bytes
    account: WithheldInterval | None


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """Message with the number of frames captured so far, and the reason why the last unusable frame was withheld."""

    captured: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ViewCondition:
    """Message with the condition of a camera's view, and with the reason if the view is bad.

    An empty ``state`` means a good view.
    """

    state: ViewState = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Message with a text for the operator's log; the text does not report a failure."""

    text: str


@dataclass(frozen=True, slots=True)
class CaptureEnd:
    """Last message of a capture; every captured frame is recorded as kept or withheld before this message.

    ``last`` is the sequence number of the last frame, or -1 if no frame was captured. ``tail`` counts the frames
    withheld after the last kept frame, by reason; None if no frame was withheld. ``finished`` is true if the source
    has no more frames. ``finished`` is false if the capture was stopped, or if the source failed, which makes the
    exit status non-zero.
    """

    last: int
    tail: WithheldInterval | None
    finished: bool


Message = KeptFrame | CaptureProgress | ViewCondition | Notice | CaptureEnd
_KINDS: dict[str, type[Message]] = {
    cls.__name__: cls for cls in (KeptFrame, CaptureProgress, ViewCondition, Notice, CaptureEnd)
}


def write_message(pipe: BinaryIO, message: Message) -> None:
    """Write one message.

    Block while the pipe to the agent is full. Raise BrokenPipeError if the agent has exited.
    """
    fields: dict[str, Any] = {name: getattr(message, name) for name in message.__slots__}
    for name, value in fields.items():
        if isinstance(value, WithheldInterval):
            fields[name] = value.model_dump()
    # file names may contain bytes that are not UTF-8
    data = msgpack.packb([type(message).__name__, fields], unicode_errors="backslashreplace")
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


async def read_message(pipe: asyncio.StreamReader) -> Message | None:
    """Return the next message from the capture process, or None if the process has exited.

    Discard the incomplete message of a process that exited while writing. Raise SourceUnusable if the message is
    malformed, for example because a video decoder corrupted the memory of the capture process.
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
    except EOFError:
        return None
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise SourceUnusable(f"malformed message from the capture process: {type(error).__name__}") from None
