"""What is known about one request while it is answered. Kept in the ASGI scope under ``SCOPE_KEY``."""

from dataclasses import dataclass, field
from typing import Any

from homeport.contract import Operation
from homeport.identity import Principal

SCOPE_KEY = "homeport"


@dataclass(slots=True)
class Exchange:
    """One request on its way: each layer fills in what it found out."""

    request_id: str
    headers: dict[bytes, bytes]
    operation: Operation | None = None
    principal: Principal | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    status: int = 0


def exchange_of(scope: Any) -> Exchange:
    """The exchange of a request's ASGI scope."""
    exchange: Exchange = scope[SCOPE_KEY]
    return exchange
