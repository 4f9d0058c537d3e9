"""The core surface."""
