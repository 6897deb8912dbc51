"""Command line, local stack and deployment files. This package connects all other packages."""
