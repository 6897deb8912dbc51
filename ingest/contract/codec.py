"""Records to bytes and back: msgpack for what machines read, JSON for what people and webhooks read.

A msgpack record is a map of its fields with two more: ``kind`` and ``v``, the version as (major, minor). A minor
version may add fields, and readers ignore those that they do not know; a major version may change anything, so an
unknown one is refused and the record is parked, never guessed at.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError

from ingest.contract.records.base import Record
from ingest.exceptions import Oversize, Truncated, UnknownVersion, WrongKind, WrongType

R = TypeVar("R", bound=Record)

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""No record of any topic is larger. A batch of eight 416×416 RGB pictures is 4 MiB; a 4K JPEG is under 4 MiB."""
MAX_CONTAINERS = 64 * 1024
"""Maps and arrays in one record: a batch of 64 frames with 64 regions each, and all that moves and rests in them, has
half of that."""


def encode(record: Record, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Return a record as msgpack. Raise Oversize over ``max_bytes``, WrongType for what msgpack cannot hold."""
    return _pack(record, {"kind": record.KIND, "v": record.VERSION, **record.model_dump()}, max_bytes)


def encode_part(record: Record, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Return a record as it stands inside another one. Raise Oversize over ``max_bytes``, or WrongType."""
    return _pack(record, record.model_dump(), max_bytes)


def decode(cls: type[R], data: bytes, max_bytes: int = MAX_RECORD_BYTES) -> R:
    """Read a msgpack record of the given class.

    Raise Oversize, Truncated, WrongKind, UnknownVersion or WrongType, each of which is a CodecError.
    """
    if len(data) > max_bytes:
        raise Oversize(len(data), max_bytes)
    fields = _unpack(data)
    kind = fields.pop("kind", None)
    if kind != cls.KIND:
        raise WrongKind(cls.KIND, kind)
    version = fields.pop("v", None)
    if not isinstance(version, tuple) or len(version) != 2 or version[0] != cls.VERSION[0]:
        raise UnknownVersion(cls.KIND, version)
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        raise WrongType(cls.KIND, _problems(error)) from None


def encode_json(record: Record) -> bytes:
    """Return a record as JSON, without the fields that are None."""
    return record.model_dump_json(exclude_none=True).encode()


def decode_json(cls: type[R], data: bytes, max_bytes: int = MAX_RECORD_BYTES) -> R:
    """Read a JSON record of the given class. Raise Oversize, Truncated or WrongType."""
    if len(data) > max_bytes:
        raise Oversize(len(data), max_bytes)
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise Truncated(f"{cls.KIND}: no JSON: {error.errors()[0]['msg']}") from None
        raise WrongType(cls.KIND, _problems(error)) from None


def _pack(record: Record, fields: dict[str, Any], max_bytes: int) -> bytes:
    try:
        data: bytes = msgpack.packb(fields, use_bin_type=True)
    except (ValueError, OverflowError) as error:  # an integer over 64 bits, a lone surrogate
        raise WrongType(record.KIND, f"msgpack cannot hold it: {error}") from None
    if len(data) > max_bytes:
        raise Oversize(len(data), max_bytes)
    return data


class _Count:
    """Counts the maps and arrays of a record while they are made: a byte each, they take 70 in memory."""

    def __init__(self) -> None:
        self._left = MAX_CONTAINERS

    def __call__(self, made: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {MAX_CONTAINERS} maps and arrays")
        return made


def _unpack(data: bytes) -> dict[str, Any]:
    limit, count = len(data), _Count()
    try:
        fields = msgpack.unpackb(
            data,
            use_list=False,
            object_hook=count,
            list_hook=count,
            raw=False,
            max_bin_len=limit,
            max_str_len=limit,
            max_array_len=limit,
            max_map_len=limit,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Truncated(f"no whole msgpack record in {limit} bytes: {error or type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise WrongType("record", f"expected a map of fields, found {type(fields).__name__}")
    return fields


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors(include_input=False)[:5]
    )
