"""Encoding and decoding of records: msgpack on the data path, JSON for people and webhooks.

A msgpack record is a map with the record's fields, the record's ``kind``, and ``v``, the version as (major, minor). A
minor version may add fields, and readers ignore unknown fields. A major version may change anything, so a record of
an unknown major version is refused and becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError

from ingest.contract.records import Batch, Pixels, Preparation, Record
from ingest.exceptions import Oversize, Truncated, UnknownVersion, WrongKind, WrongType

R = TypeVar("R", bound=Record)

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Maximum size in bytes of a record of any topic. A batch of eight 416×416 RGB pictures is 4 MiB; a 4K JPEG is under
4 MiB."""
MAX_JSON_BYTES = 1024 * 1024
"""Maximum size in bytes of a record in JSON, such as an event. The largest event of any rule takes 20 KiB."""
MAX_CONTAINERS = 64 * 1024
"""Maximum number of maps and arrays in one record. A batch of 64 frames with 64 regions each, and with all boxes of
moving and stationary objects, contains half as many maps and arrays as ``MAX_CONTAINERS``."""
HEAD_BYTES = 1024
"""Maximum size in bytes of an encoded batch without its items, pixels and frames: field names, numbers, and a
pipeline name of 63 characters."""

_NO_PICTURES = b"".join(msgpack.packb(part, use_bin_type=True) for part in ("pixels", b"", "frames", b""))
"""Last bytes of an encoded batch whose fields ``pixels`` and ``frames`` are empty."""


def encode(record: Record, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Return a record as msgpack.

    Raise Oversize for a record of more than ``max_bytes``, and WrongType for a value that msgpack cannot represent.
    """
    return _pack(record, {"kind": record.KIND, "v": record.VERSION, **record.model_dump(by_alias=True)}, max_bytes)


def encode_part(record: Record, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Return a record as msgpack without ``kind`` and ``v``, for use as a field of another record.

    Raise Oversize or WrongType as ``encode`` does.
    """
    return _pack(record, record.model_dump(by_alias=True), max_bytes)


def decode(cls: type[R], data: bytes, max_bytes: int = MAX_RECORD_BYTES) -> R:
    """Decode a msgpack record of the given class.

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
        # the same as model_validate, in four fifths of its time
        found: R = cls.__pydantic_validator__.validate_python(fields)
        return found
    except ValidationError as error:
        raise WrongType(cls.KIND, _problems(error)) from None


def encode_json(record: Record) -> bytes:
    """Return a record as JSON, without the fields that are None."""
    return record.model_dump_json(exclude_none=True, by_alias=True).encode()


def decode_json(cls: type[R], data: bytes, max_bytes: int = MAX_JSON_BYTES) -> R:
    """Read a JSON record of the given class. Raise Oversize, Truncated or WrongType."""
    if len(data) > max_bytes:
        raise Oversize(len(data), max_bytes)
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise Truncated(f"{cls.KIND}: malformed JSON: {error.errors()[0]['msg']}") from None
        raise WrongType(cls.KIND, _problems(error)) from None


def encode_batch(
    pipeline: str,
    preparation: Preparation,
    items: Sequence[bytes],
    pictures: Sequence[Pixels],
    frames: Sequence[bytes] = (),
) -> bytes:
    """Return an encoded batch with the given encoded items and the pictures of their regions.

    Each picture is a contiguous uint8 array ``(h, w, channels)``. ``frames`` holds the encoded frame of each item
    whose ``attached`` declares a frame.

    The returned bytes equal those that ``encode`` returns for the whole Batch. The caller encodes each item with
    ``encode_part``, so that an item that cannot be encoded does not make the whole batch fail. Encoding the items
    first also tells the caller how large the batch will be. Pixels are copied only once. The caller must keep the
    batch within the size limit: a batch takes at most ``HEAD_BYTES`` more than its items, pictures and frames.
    """
    pack = msgpack.Packer(use_bin_type=True)
    canvas, colour, fit = preparation
    own = {"pipeline": pipeline, **canvas._asdict(), "colour": colour, "fit": fit}
    fields = {"kind": Batch.KIND, "v": Batch.VERSION, **own}
    head = [pack.pack(part) for field in fields.items() for part in field]
    return b"".join(
        (
            pack.pack_map_header(len(fields) + 3),
            *head,
            pack.pack("items"),
            pack.pack_array_header(len(items)),
            *items,
            pack.pack("pixels"),
            _bin_header(sum(picture.nbytes for picture in pictures)),
            *(picture.data for picture in pictures),
            pack.pack("frames"),
            _bin_header(sum(map(len, frames))),
            *frames,
        )
    )


def has_pictures(batch: bytes) -> bool:
    """Return whether an encoded batch may have pixels or frames, without decoding the batch.

    Only the last bytes are examined, because ``encode`` and ``encode_batch`` write ``pixels`` and ``frames`` last. A
    batch that ends with other fields counts as a batch with pictures.
    """
    return not batch.endswith(_NO_PICTURES)


def _pack(record: Record, fields: dict[str, Any], max_bytes: int) -> bytes:
    try:
        data: bytes = msgpack.packb(fields, use_bin_type=True)
    except (ValueError, OverflowError) as error:  # an integer over 64 bits, a lone surrogate
        raise WrongType(record.KIND, f"msgpack cannot represent the record: {error}") from None
    if len(data) > max_bytes:
        raise Oversize(len(data), max_bytes)
    return data


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        if len(data) <= MAX_CONTAINERS:  # a map or an array takes at least one byte
            fields = msgpack.unpackb(data, use_list=False, raw=False)
        else:
            count = _container_limit()
            fields = msgpack.unpackb(data, use_list=False, raw=False, object_hook=count, list_hook=count)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Truncated(f"malformed msgpack in {len(data)} bytes: {error or type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise WrongType("record", f"expected a map of fields, found {type(fields).__name__}")
    return fields


def _container_limit() -> Callable[[Any], Any]:
    """Return a hook that counts the maps and arrays of a record, and raises ValueError beyond ``MAX_CONTAINERS``. An
    empty map takes 1 byte in msgpack but 70 bytes in memory."""
    left = MAX_CONTAINERS

    def count(made: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"the record has more than {MAX_CONTAINERS} maps and arrays")
        return made

    return count


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors(include_input=False)[:5]
    )


def _bin_header(size: int) -> bytes:
    """Return the shortest header of a binary value (msgpack specification, bin format family)."""
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")
