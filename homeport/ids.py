"""Identifiers and names: time-ordered UUIDs, ids as text, names for people."""

import os
import re
import time
import unicodedata
from uuid import UUID

from homeport.errors import InvalidRequest

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def uuid7() -> UUID:
    """A UUID of version 7: sorts by the time it was made, to a quarter of a microsecond, so that new rows stand together in an index."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    tail = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail)


def parse_uuid(text: str) -> UUID | None:
    """The UUID written as ``text`` in the usual 8-4-4-4-12 form, or None when it is anything else."""
    return UUID(text) if _UUID.fullmatch(text) else None


def check_name(name: str, what: str) -> str:
    """Return ``name`` without surrounding blanks. Raises InvalidRequest when it is empty, longer than 200, or has control characters."""
    name = name.strip()
    if not 1 <= len(name) <= 200 or any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidRequest(f"The name of {what} must be 1 to 200 characters without control characters.")
    return name
