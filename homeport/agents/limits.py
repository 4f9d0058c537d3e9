"""What an agent may take: every run ends, whatever its model and its tools do."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from homeport.errors import InvalidRequest

# The least and the most of each limit; those that count are whole numbers, those in seconds need not be.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "turns": (1, 200),
    "tokens": (1, 100_000_000),
    "time_s": (0.1, 86_400.0),
    "tool_time_s": (0.1, 3600.0),
    "approval_s": (0.1, 604_800.0),
    "result_chars": (100, 1_000_000),
    "answer_tokens": (1, 1_000_000),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one run, which is what an agent does to answer one message.

    ``turns`` is how often the model may be asked, the last time without tools, so that it answers with what it has. ``tokens`` counts
    prompts and answers of all turns. ``time_s`` is wall time without the waits for people, ``tool_time_s`` bounds one tool call and
    ``approval_s`` one wait for a person. A tool's result is cut to ``result_chars``; ``answer_tokens`` bounds each answer of the model
    (None: the model decides).
    """

    turns: int = 16
    tokens: int = 200_000
    time_s: float = 600.0
    tool_time_s: float = 60.0
    approval_s: float = 600.0
    result_chars: int = 20_000
    answer_tokens: int | None = None


LIMIT_NAMES = tuple(field.name for field in fields(Limits))


def check_limits(limits: Mapping[str, Any]) -> dict[str, float]:
    """Those of ``limits`` that are set, as they are stored; one that is None is at its default, and is left out.

    Raises InvalidRequest that says what is possible.
    """
    if unknown := [name for name in limits if name not in BOUNDS]:
        raise InvalidRequest(f"There is no limit '{unknown[0][:80]}'. There are {', '.join(LIMIT_NAMES)}.")
    return {name: _check(name, value) for name, value in limits.items() if value is not None}


def _check(name: str, value: Any) -> float:
    least, most = BOUNDS[name]
    is_in_seconds = name.endswith("_s")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or not (is_in_seconds or value == int(value)):
        what = "a number of seconds" if is_in_seconds else "a whole number"
        raise InvalidRequest(f"The limit {name} must be {what} from {least:g} to {most:.0f}.")
    return float(value) if is_in_seconds else int(value)
