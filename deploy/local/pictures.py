"""List the picture files of a folder that the user gave to a command."""

from __future__ import annotations

from pathlib import Path

from edge_agent.sources.images import list_pictures
from ingest.exceptions import ConfigError

KNOWN_PICTURES = "a folder with JPEG, PNG, WebP, TIFF or BMP files"


def picture_names(folder: Path, command: str, argument: str) -> list[str]:
    """Return the sorted paths of the pictures in a folder and its sub-folders, relative to the folder.

    Raise ConfigError, which names the command and the argument, for a folder that cannot be read.
    """
    try:
        return sorted(found.name for found in list_pictures(folder, recursive=True))
    except OSError as error:
        raise ConfigError(command, argument, str(folder), f"a readable folder ({error.strerror})") from None
