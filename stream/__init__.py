"""Stream processors: the stages prepare, sense, analyse and alerts."""
