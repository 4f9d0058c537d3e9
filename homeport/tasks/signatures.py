"""The signature of the local app contract: HMAC-SHA256 over what an event says, with a secret that both sides know.

Signed are the event's id, its canonical name, the task, the attempt, the time, and the SHA-256 of what the event carries as JSON. The
official clients write that JSON in two ways: Python with sorted keys and only ASCII, TypeScript in the order of the object. Either is
accepted.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from adapters.postgres import dump_json
from homeport.clock import parse_time
from homeport.errors import InvalidRequest

SIGNATURE_HEADER = "x-rtx-contract-signature"
EVENT_ID_HEADER = "x-rtx-event-id"
ALGORITHM = "sha256"
WINDOW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed of an event, each part as it was sent. ``data`` is what the event carries besides, in the order in which it came."""

    event_id: str
    event: str
    task_id: str
    attempt_id: str
    timestamp: str
    data: Mapping[str, Any] = field(repr=False)

    def sign(self, secret: str) -> str:
        """The signature, as Python's official client makes it."""
        return self._sign(secret, _sorted_json(self.data))

    def is_signed_by(self, secret: str, signature: str) -> bool:
        """Whether ``signature`` was made with this secret, by either client. Takes the same time whatever it says.

        Raises InvalidRequest for data that is nested too deeply.
        """
        given = signature.strip().encode("utf-8", "replace")
        in_order = dump_json(self.data)
        matches = [hmac.compare_digest(self._sign(secret, content).encode(), given) for content in (in_order, _sorted_json(self.data))]
        return any(matches)

    def is_fresh(self, now: datetime) -> bool:
        """Whether it was sent within the last minutes, as far as its own time says."""
        try:
            sent_at = parse_time(self.timestamp)
        except InvalidRequest:
            return False
        return sent_at is not None and abs(now - sent_at) <= WINDOW

    def _sign(self, secret: str, content: bytes) -> str:
        parts = (self.event_id, self.event, self.task_id, self.attempt_id, self.timestamp, hashlib.sha256(content).hexdigest())
        # Text that is no Unicode cannot have been signed by anybody.
        message = ".".join(parts).encode("utf-8", "replace")
        return f"{ALGORITHM}={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def _sorted_json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
