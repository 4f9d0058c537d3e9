"""Times as text: RFC 3339, always UTC with ``Z`` on the way out."""

from datetime import UTC, datetime
from typing import overload

from homeport.errors import InvalidRequest


@overload
def format_time(moment: datetime) -> str: ...
@overload
def format_time(moment: datetime | None) -> str | None: ...
def format_time(moment: datetime | None) -> str | None:
    """``moment`` as RFC 3339 in UTC with milliseconds, such as ``2024-01-15T10:00:00.000Z``; None stays None."""
    if moment is None:
        return None
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


def parse_time(text: str | None) -> datetime | None:
    """The time written as RFC 3339 in ``text``, in UTC; None stays None.

    Raises InvalidRequest when it is no time, has no offset from UTC, or lies outside the years 1 to 9999.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"'{text[:80]}' is not a time that can be used; write it like 2030-01-31T12:00:00Z.") from error
