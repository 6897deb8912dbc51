"""Access: passwords, limits of sign-in, roles, and the check of every request."""
