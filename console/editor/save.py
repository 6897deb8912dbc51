"""Writing of changes to the ``config`` topic."""

from __future__ import annotations

from collections.abc import Callable

from console.editor.draft import EntryChange
from console.exceptions import Conflict
from ingest.exceptions import Fenced
from ingest.kafka.log import Log
from ingest.site.topic.signature import ConfigSigner
from ingest.site.topic.store import WRITER, commit, read
from ingest.site.topic.view import Config


async def save(
    log: Log, changes_of: Callable[[Config], list[EntryChange]], signer: ConfigSigner | None = None
) -> list[EntryChange]:
    """Write the changes that ``changes_of`` returns for the present configuration, in one transaction.

    Raise Conflict if another process writes to the topic at the same time, LogUnavailable if Kafka cannot be reached,
    and the errors of ``changes_of``; nothing is changed then.
    """
    writer = await log.writer(WRITER)
    try:
        present = await read(log, trust=signer.trust() if signer else None)
        if signer:
            signer.after = present.signed_at
        changes = changes_of(present)
        written = [change.after for change in changes if change.after is not None]
        removed = [change.key for change in changes if change.after is None]
        await commit(writer, written, removed, signer)
    except Fenced as error:
        raise Conflict(str(error)) from None
    finally:
        await writer.close()
    return changes
