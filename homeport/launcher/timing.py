"""How patient the launcher is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, but for ``failures``. So many in a row, each within ``stable_s`` of a start, are enough to give up."""

    lease_s: float = 10.0
    poll_s: float = 3.0
    start_s: float = 60.0
    settle_s: float = 1.0
    ask_s: float = 0.2
    watch_s: float = 5.0
    unhealthy_s: float = 60.0
    first_delay_s: float = 1.0
    last_delay_s: float = 60.0
    stable_s: float = 60.0
    failures: int = 8
