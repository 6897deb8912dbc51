"""What is worth sending."""
