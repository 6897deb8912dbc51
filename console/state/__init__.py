"""State of the console in SQLite: users, sessions, API tokens and the audit trail."""
