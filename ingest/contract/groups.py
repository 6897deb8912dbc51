"""Names of the consumer groups that process frames and batches."""

from __future__ import annotations

from collections.abc import Mapping

from ingest.contract.topics import BATCHES, BATCHES_LATE, FRAMES, FRAMES_LATE

PREPARE_LIVE, PREPARE_LATE, ENGINES = "prepare-live", "prepare-late", "engines"
FUSED_CLIENT = "engine-fused-"
"""Beginning of the client id of an engine node that prepares frames itself (``sightline engine --fused``)."""
READERS: Mapping[str, tuple[str, ...]] = {
    FRAMES: (PREPARE_LIVE, ENGINES),
    FRAMES_LATE: (PREPARE_LATE, ENGINES),
    BATCHES: (ENGINES,),
    BATCHES_LATE: (ENGINES,),
}
"""The groups that may process a topic. An engine node that prepares frames itself (``--fused``) commits the offsets
of the frames for the group ``engines``. Each group commits only processed records, so the highest of the committed
offsets is the position of all groups."""
