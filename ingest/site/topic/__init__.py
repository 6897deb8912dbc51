"""The compacted ``config`` topic: store, view, follower, and the changes that applying a site makes."""
