"""Incidents: grouping of events, a view of all incidents for people, and their actions."""
