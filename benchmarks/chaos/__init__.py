"""A run of the whole stack while a seeded plan kills, pauses and stops its processes and the broker."""
