"""Model repository on disk: manifests, versions, hashes, promotion, roll-back and adoption of foreign models."""
