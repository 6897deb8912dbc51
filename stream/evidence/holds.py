"""Legal holds: evidence that neither retention nor erasure deletes.

A hold is a small file in the evidence store itself, so that no loss of a topic can release it.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingest.contract.identity import NAME_PATTERN
from ingest.contract.records.base import Count, Id, Name
from stream.evidence.names import EvidenceName
from stream.evidence.store import EvidenceStore
from stream.exceptions import NotStored, StoreFailed

FOLDER = "holds/"
"""Beginning of the names of all holds. The name of an evidence file has three parts, so no evidence file can have the
name of a hold."""
_MAX_BYTES = 64 * 1024


class LegalHold(BaseModel):
    """A hold on the evidence of one event, or of one camera between two times.

    A hold also covers evidence that is stored after the hold was made. Times are capture times in Unix ns, both
    included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    camera: Name | None = None
    since_ns: Count = 0
    until_ns: Count = 2**63 - 1
    event: Id | None = None
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    by: Annotated[str, Field(max_length=100)] = ""
    """The user that placed the hold."""
    placed_ns: Count

    @model_validator(mode="after")
    def _covers_something(self) -> Self:
        if (self.camera is None) == (self.event is None):
            raise ValueError("expected either camera or event")
        if self.since_ns > self.until_ns:
            raise ValueError(f"expected until_ns at or after since_ns = {self.since_ns}, not {self.until_ns}")
        return self

    def covers(self, evidence: EvidenceName) -> bool:
        """Return whether the hold covers evidence with this name."""
        if self.event is not None:
            return evidence.event == self.event
        return (
            evidence.subject == self.camera
            and evidence.first_ns <= self.until_ns
            and evidence.last_ns >= self.since_ns
        )


def read_holds(store: EvidenceStore) -> list[LegalHold]:
    """Return all holds of a store, sorted by name.

    Raise StoreFailed, also for a hold that cannot be read: without its contents, nothing may be deleted.
    """
    found = []
    for file in sorted(store.list(FOLDER)):
        try:
            with store.open(file.name) as stream:
                found.append(LegalHold.model_validate_json(stream.read(_MAX_BYTES)))
        except NotStored:
            continue  # released meanwhile
        except ValidationError as error:
            raise StoreFailed(
                f"{file.name} is no legal hold: {error.errors()[0]['msg']}: expected the file of `sightline evidence "
                "hold`. Release the hold and place it again"
            ) from None
    return found


def place(store: EvidenceStore, hold: LegalHold) -> None:
    """Place a hold. A hold of the same name is replaced. Raise StoreFailed."""
    store.put(_file(hold.name), hold.model_dump_json(exclude_none=True).encode(), "application/json")


def release(store: EvidenceStore, name: str) -> bool:
    """Release a legal hold, and return whether the store had the hold. Raise StoreFailed."""
    file = _file(name) if re.fullmatch(NAME_PATTERN, name) else ""
    if not file or all(found.name != file for found in store.list(file)):
        return False
    store.delete(file)
    return True


def _file(name: str) -> str:
    return f"{FOLDER}{name}.json"
