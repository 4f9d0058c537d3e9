"""Homeport: the one local server that AI apps dock at."""

__version__ = "0.1.0"
