"""The hardened Faust loop, its watchdog, and the same rules in memory."""
