"""The events of the local app contract: their names, old and new, and how attempts are numbered.

The names are the official clients' own; each is understood in any letter case.
"""

from typing import Literal, cast

CONTRACT_VERSION = "local-app-contract/v1"
ATTEMPT_PREFIX = "run-"
MAX_ATTEMPT_ID = 200

Report = Literal["task.claimed", "task.started", "task.progress", "task.completed", "task.failed", "task.canceled"]
"""What may be told of a task."""
ContractEvent = Literal["task.trigger", "system.ping"] | Report

# The first of each line is the canonical name, the second what the oldest clients call it.
_NAMES: dict[ContractEvent, tuple[str, ...]] = {
    "task.trigger": ("trigger-agent",),
    "system.ping": ("ping",),
    "task.claimed": ("claim", "claimed"),
    "task.started": ("start", "task-start"),
    "task.progress": ("progress", "task-progress", "processing"),
    "task.completed": ("complete", "task-complete", "completed"),
    "task.failed": ("fail", "task-fail", "failed"),
    "task.canceled": ("cancel", "task-cancel", "task-cancelled", "task-canceled", "cancelled", "canceled"),
}
EVENTS: tuple[ContractEvent, ...] = tuple(_NAMES)
OLD_NAMES: tuple[str, ...] = tuple(name for names in _NAMES.values() for name in names)
ALIASES: dict[str, ContractEvent] = {name: event for event, names in _NAMES.items() for name in (*names, event)}
ACTIONS: dict[ContractEvent, str] = {event: names[0] for event, names in _NAMES.items()}
"""The verb that stands beside an event for old programs."""


def canonical_event(name: str) -> ContractEvent | None:
    """The canonical name of an event; None for what is no event."""
    return ALIASES.get(name.strip().lower())


def is_report(event: ContractEvent) -> bool:
    """Whether an event tells something of a task that exists."""
    return event not in ("task.trigger", "system.ping")


def as_report(event: ContractEvent) -> Report:
    """The same event, known to be one that tells something of a task."""
    return cast(Report, event)


def canonical_attempt_id(value: object) -> str | None:
    """``run-3`` for the numbers 3 and "3"; other text stays as it is, and anything else is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{ATTEMPT_PREFIX}{value}" if value > 0 else None
    if not isinstance(value, str) or not (text := value.strip()):
        return None
    return f"{ATTEMPT_PREFIX}{text}" if text.isdigit() else text
