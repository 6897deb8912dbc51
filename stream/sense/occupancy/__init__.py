"""Occupancy of a place: entries minus exits over the lines at its doors, counted from the minutes of measures."""
