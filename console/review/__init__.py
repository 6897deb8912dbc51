"""Review of single events: clips, and parts of files for players."""
