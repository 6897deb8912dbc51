"""Stream processors: prepare, sense, analyse, alerts."""
