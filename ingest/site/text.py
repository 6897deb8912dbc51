"""Text files that users write with any editor."""

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
"""Byte order marks, and the encodings that they announce."""


def read_text(path: Path, kind: str = "text") -> str:
    """Return the text of a file in the encoding of its byte order mark, UTF-8 without one.

    ``kind`` names the format in errors. Raise ConfigError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror, f"a readable {kind} file") from None
    expected = f"valid {kind} in UTF-8, or with a byte order mark"
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), "file", str(error), f"valid {kind} in UTF-8, or with a byte order mark"
        ) from None
    if "\0" in text:
        raise ConfigError(str(path), "file", "NUL characters", expected)
    return text
