"""Command line, local stack and deployment files.

This package provides the commands that start the services of all other packages.
"""
