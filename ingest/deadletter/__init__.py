"""Dead letters: parked records, their list, and their replay."""

from ingest.deadletter.letters import DeadLetter, ReplayReport, letters, parked, replay

__all__ = ["DeadLetter", "ReplayReport", "letters", "parked", "replay"]
