"""Put a batch's bytes together from parts: the very bytes that ``encode`` makes of the whole record.

Items are encoded one by one as they come, with ``encode_part``, so that each is refused alone and a batch's size is
known before it is made; pixels are copied once, from where they were drawn into the record.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from ingest.contract.records import Batch, Canvas, Pixels

HEAD_BYTES = 1024
"""What a batch takes beside its items and pixels, at most: names of fields, numbers, and a name of 63 characters."""


def encode_batch(pipeline: str, canvas: Canvas, items: Sequence[bytes], pictures: Sequence[Pixels]) -> bytes:
    """Return the batch of encoded items and their regions' pictures, each ``(h, w, channels)`` uint8, contiguous.

    The caller keeps to the codec's limit: it knows the size of each part, and that of the rest by ``HEAD_BYTES``.
    """
    pack = msgpack.Packer(use_bin_type=True)
    fields = {
        "kind": Batch.KIND,
        "v": Batch.VERSION,
        "pipeline": pipeline,
        "height": canvas.height,
        "width": canvas.width,
        "channels": canvas.channels,
    }
    head = [pack.pack(part) for field in fields.items() for part in field]
    return b"".join(
        (
            pack.pack_map_header(len(fields) + 2),
            *head,
            pack.pack("items"),
            pack.pack_array_header(len(items)),
            *items,
            pack.pack("pixels"),
            _bin_header(sum(picture.nbytes for picture in pictures)),
            *(picture.data for picture in pictures),
        )
    )


def _bin_header(size: int) -> bytes:
    """Return what precedes that many bytes, in the shortest form (msgpack's specification, bin format family)."""
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")
