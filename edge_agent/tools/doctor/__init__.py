"""What a technician needs to know of an agent before it is left alone."""
