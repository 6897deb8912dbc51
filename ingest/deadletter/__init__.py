"""Dead letters: storing, listing and replaying records that could not be processed."""

from ingest.deadletter.letters import DeadLetter, ReplayReport, erase, letter_at, letters, parked, replay

__all__ = ["DeadLetter", "ReplayReport", "erase", "letter_at", "letters", "parked", "replay"]
