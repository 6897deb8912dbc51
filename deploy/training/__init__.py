"""What it takes to train a model: pictures from the edge, windows from prepare, a network from the engines."""
