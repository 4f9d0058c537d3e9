"""The signature of the local app contract: HMAC-SHA256 over what an event says, with a secret that both sides know.

Signed are the event's id, its canonical name, the task, the attempt, the time, and the SHA-256 of what the event carries as JSON. The
official clients write that JSON in two ways: Python with sorted keys and only ASCII, TypeScript in the order of the object and with
numbers as JavaScript writes them. Either is accepted.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
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
EXPONENT = re.compile(rb"\de[+-]?\d")
STRING_OR_EXPONENT = re.compile(rb'"(?:[^"\\]|\\.)*"|(?P<sign>-?)(?P<whole>\d)(?:\.(?P<fraction>\d+))?e(?P<exponent>[+-]?\d+)')


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

    def is_signed_by(self, secrets: Sequence[str], signature: str) -> bool:
        """Whether ``signature`` was made with one of these secrets, by either client. Takes the same time whatever it says.

        Raises InvalidRequest for data that is nested too deeply.
        """
        given = signature.strip().encode("utf-8", "replace")
        contents = (_javascript_json(self.data), _sorted_json(self.data))
        matches = [hmac.compare_digest(self._sign(secret, content).encode(), given) for secret in secrets for content in contents]
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


def _javascript_json(data: Mapping[str, Any]) -> bytes:
    """What JavaScript makes of the data: what orjson makes of it, but for numbers that orjson writes with an exponent."""
    content = dump_json(data)
    return STRING_OR_EXPONENT.sub(_as_in_javascript, content) if EXPONENT.search(content) else content


def _as_in_javascript(found: re.Match[bytes]) -> bytes:
    """A number between 1e-6 and 1e21 has no exponent in JavaScript, and a positive exponent has a sign."""
    if found["exponent"] is None:
        return found[0]  # a string
    sign, whole, fraction, exponent = found["sign"], found["whole"], found["fraction"] or b"", int(found["exponent"])
    digits = whole + fraction
    if 0 <= exponent < 21:
        return sign + digits.ljust(exponent + 1, b"0")  # orjson's exponents begin at 16; a double has 17 digits at most
    if -7 < exponent < 0:
        return sign + b"0." + b"0" * (-exponent - 1) + digits
    return sign + whole + (b"." + fraction if fraction else b"") + b"e%+d" % exponent


def _sorted_json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
