"""What composes the parts: the command line, the local stack, the charts."""
