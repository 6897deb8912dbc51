"""Gate: decide which captured frames are sent, by armed hours, rate, motion and a random sample."""
