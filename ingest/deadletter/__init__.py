"""Dead letters: parking, listing and replaying records that could not be processed."""

from ingest.deadletter.letters import DeadLetter, ReplayReport, letters, parked, replay

__all__ = ["DeadLetter", "ReplayReport", "letters", "parked", "replay"]
