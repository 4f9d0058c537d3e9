"""Spans of time as people write them."""

import re
from datetime import timedelta

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdwy])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


def parse_span(text: str) -> timedelta | None:
    """The span written as ``12h``, ``30d``, ``8w`` or ``1y``; None when ``text`` is something else."""
    span = _SPAN.fullmatch(text.lower())
    return timedelta(hours=int(span[1]) * _HOURS[span[2]]) if span else None
