"""What classifies: back ends, decoders, the model repository and the node."""
