"""Opens the evidence store that a command line names."""

from __future__ import annotations

from pathlib import Path

from stream.evidence.folder import FolderStore
from stream.evidence.store import EvidenceStore


def open_store(address: str) -> EvidenceStore:
    """Return the evidence store at an address, which is the path of a folder."""
    return FolderStore(Path(address))
