"""Gate: decides which captured frames are sent, by armed hours, frame rate, motion and a random sample."""
