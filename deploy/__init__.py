"""Command line, local stack and deployment files. This package composes all others."""
