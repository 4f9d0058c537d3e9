"""What the threat page (docs/security.md) promises, tried against running servers; and what `make check` does for it."""
