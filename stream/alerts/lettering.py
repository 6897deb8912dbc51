"""Draws text on evidence pictures, in every script for which a font is installed.

The functions of this module have no side effects, except that they read font files.

OpenCV draws ASCII letters only. Pillow draws with DejaVu Sans, which comes with matplotlib and has Latin, Greek,
Cyrillic, Arabic and Hebrew letters. Scripts that DejaVu Sans lacks need a system font, or a font that
``SIGHTLINE_FONT`` names (decision 9 in ``docs/decisions``).
"""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ingest.exceptions import ConfigError
from ingest.runtime import logs

_log = logs.get("stream.lettering")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_VARIABLE = "SIGHTLINE_FONT"
"""Environment variable with the path of the font file that is tried first."""
_SYSTEM = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",  # Debian and Ubuntu: fonts-noto-cjk
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",  # Fedora
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSansDevanagari-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSansThai-Regular.ttf",
)
"""Paths of fonts for scripts that DejaVu Sans lacks, as Linux distributions install them."""
_NO_CHARACTER = "\uffff"
"""A code point to which no character is assigned. A font draws such a code point with the same replacement shape as
every character that the font lacks."""
_PROBE_PX = 20
_MOST_CHARACTERS = 300
"""Maximum number of characters drawn in one line. Even a picture 4,096 px wide has room for fewer than 300
characters."""


def require_font() -> None:
    """Raise ConfigError if ``SIGHTLINE_FONT`` is set and does not name a font file."""
    path = os.environ.get(FONT_VARIABLE, "")
    try:
        if path:
            ImageFont.truetype(path, _PROBE_PX)
    except OSError:
        raise ConfigError("environment", FONT_VARIABLE, path, "a TrueType or OpenType font file") from None


def text_size(text: str, px: int) -> tuple[int, int]:
    """Return the width and height of a line of text in px."""
    width = sum(font.getlength(run) for font, run in _runs(text, px))
    return int(np.ceil(width)), px + px // 4


def put_text(
    image: npt.NDArray[np.uint8], at: tuple[int, int], text: str, px: int, colour: tuple[int, int, int]
) -> None:
    """Draw a line of text into a BGR picture, clipped to the picture. ``at`` is the position ``(left, top)`` of the
    text, in px."""
    (left, top), (width, height) = at, text_size(text, px)
    cut = max(-left, 0), max(-top, 0)
    room = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if not room.size:
        return
    mask = Image.new("L", (room.shape[1], room.shape[0]), 0)
    draw, x = ImageDraw.Draw(mask), float(-cut[0])
    for font, run in _runs(text, px):
        draw.text((x, px - cut[1]), run, fill=255, font=font, anchor=_anchor(font))
        x += font.getlength(run)
    share = np.asarray(mask, np.float32)[..., None] / 255.0
    room[:] = np.rint(room * (1.0 - share) + np.array(colour, np.float32) * share).astype(np.uint8)


def _runs(text: str, px: int) -> list[tuple[Font, str]]:
    """Split a line into runs of characters, each drawn with one font."""
    line = "".join(c if c.isprintable() else " " for c in text[:_MOST_CHARACTERS])
    return [(_font(path, px), "".join(run)) for path, run in groupby(line, key=font_for)]


@functools.lru_cache(maxsize=4096)
def font_for(character: str) -> str:
    """Return the path of the first font that has a character, or "" for Pillow's built-in font.

    Log a warning if no font has the character.
    """
    files = _font_files()
    for path in files:
        if _has(path, character):
            return path
    _log.warning(
        "font_lacks_character",
        character=character,
        code=f"U+{ord(character):04X}",
        fix=f"install a font with it, such as fonts-noto-cjk, or name one in {FONT_VARIABLE}",
    )
    return files[0]


@functools.cache
def _font_files() -> tuple[str, ...]:
    matplotlib = find_spec("matplotlib")  # importing matplotlib would take a second; only its font folder is needed
    folders = matplotlib.submodule_search_locations if matplotlib else None
    shipped = [str(Path(folder, "mpl-data/fonts/ttf/DejaVuSans.ttf")) for folder in folders or ()]
    named = [os.environ.get(FONT_VARIABLE, "")]
    found = [path for path in (*named, *shipped, *_SYSTEM) if path and Path(path).is_file()]
    return tuple(found) or ("",)


@functools.lru_cache(maxsize=64)
def _font(path: str, px: int) -> Font:
    return ImageFont.truetype(path, px) if path else ImageFont.load_default(px)


def _anchor(font: Font) -> str | None:
    """Return the name of the Pillow anchor that puts a text's base line at a given height. With this anchor, pieces
    of text in several fonts share one base line."""
    return "ls" if isinstance(font, ImageFont.FreeTypeFont) else None


def _has(path: str, character: str) -> bool:
    if character.isspace():
        return True
    font = _font(path, _PROBE_PX)
    return bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))
