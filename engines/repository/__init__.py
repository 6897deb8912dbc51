"""Models on disk: manifest, versions, hashes, promote, roll back, adopt."""
