"""The stage ``prepare``: decode, denoise, crop and batch frames for the models, and shed frames that are too old."""
