"""Tools for planning, checking and previewing an agent."""
