"""One pure ASGI middleware a file, each an object built with explicit options."""
