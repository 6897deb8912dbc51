"""From results to events: tracking, zones, lines, rules."""
