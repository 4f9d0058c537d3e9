"""The admin surface: keys, apps, grants and permission requests."""
