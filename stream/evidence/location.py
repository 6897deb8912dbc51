"""Opens the evidence store that a command line names."""

from __future__ import annotations

import os
from pathlib import Path

from ingest.exceptions import ConfigError
from stream.evidence.folder import FolderStore
from stream.evidence.store import EvidenceStore

KEY_FILE = "SIGHTLINE_EVIDENCE_KEYS"
"""Environment variable with the path of the key file. If the variable is set, new files are encrypted."""


def open_store(address: str, request_s: float | None = None) -> EvidenceStore:
    """Return the evidence store at an address: the path of a folder, or ``s3://BUCKET/PREFIX``. ``request_s`` is the
    time limit of one request to a bucket, in seconds, if it differs from the usual limit.

    The store encrypts files if the environment names a key file. Raise ConfigError.
    """
    store = _plain_store(address, request_s)
    if path := os.environ.get(KEY_FILE):
        from stream.evidence.encrypted import EncryptedStore, read_keys

        return EncryptedStore(store, read_keys(Path(path)))
    return store


def _plain_store(address: str, request_s: float | None) -> EvidenceStore:
    if address.startswith("s3://"):
        from stream.evidence.s3 import (
            REQUEST_S,
            BucketStore,
        )  # obstore takes memory that a local folder does not need

        return BucketStore(address, request_s or REQUEST_S)
    if "://" in address:
        raise ConfigError("evidence", "--evidence", address, "the path of a folder, or s3://BUCKET/PREFIX")
    return FolderStore(Path(address))
