"""Pictures of files, sent on the way of camera frames: `sightline classify`."""
