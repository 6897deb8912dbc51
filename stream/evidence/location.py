"""Opens the evidence store that a command line names."""

from __future__ import annotations

from pathlib import Path

from ingest.exceptions import ConfigError
from stream.evidence.folder import FolderStore
from stream.evidence.store import EvidenceStore


def open_store(address: str) -> EvidenceStore:
    """Return the evidence store at an address: the path of a folder, or ``s3://BUCKET/PREFIX``.

    Raise ConfigError.
    """
    if address.startswith("s3://"):
        from stream.evidence.s3 import BucketStore  # obstore takes memory that a local folder does not need

        return BucketStore(address)
    if "://" in address:
        raise ConfigError("evidence", "--evidence", address, "the path of a folder, or s3://BUCKET/PREFIX")
    return FolderStore(Path(address))
