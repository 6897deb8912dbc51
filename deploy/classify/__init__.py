"""Implementation of `sightline classify`, which sends picture files through the stack like frames of a camera."""
