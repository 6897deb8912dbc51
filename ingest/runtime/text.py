"""Decoding of text files that users write with any editor."""

from __future__ import annotations

import codecs
from pathlib import Path

from ingest.exceptions import ConfigError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Pairs of a byte order mark and the name of its encoding in Python."""


def decode_text(data: bytes) -> str:
    """Decode the bytes of a text file in the encoding of its byte order mark, or in UTF-8 if the file has no mark.

    Every text file that a user writes is decoded by this function: secrets, labels, site files and policy files. If
    decoding fails, raise ValueError with a message that quotes nothing of the file.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no valid {encoding}") from None
    if "\0" in text:
        raise ValueError("the text has NUL characters, as in UTF-16 without a byte order mark")
    return text


def read_text(path: Path, kind: str = "text") -> str:
    """Return the text of a file. ``kind`` names the format in error messages. Raise ConfigError."""
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror, f"a readable {kind} file") from None
    except ValueError as error:
        raise ConfigError(
            str(path), "file", str(error), f"valid {kind} in UTF-8, or in UTF-16 or UTF-32 with a byte order mark"
        ) from None
