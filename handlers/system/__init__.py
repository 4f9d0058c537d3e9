"""The server about itself: its contract and the API browser."""
