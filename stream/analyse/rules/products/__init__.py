"""Rules over products on a belt, one module each."""
