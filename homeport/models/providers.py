"""What a model provider is: as configured, with its key, and as shown, without it."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from adapters.chat import Endpoint
from adapters.model_catalog import Role, by_role
from homeport.errors import AppError, InvalidRequest

Source = Literal["database", "environment", "ollama", "native"]

NATIVE = "native"  # the kind, the source and the name of the embedding model that is built in

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """A provider as it was configured. ``models`` are those that somebody named; ``problem`` says why it cannot be used."""

    endpoint: Endpoint
    source: Source
    models: tuple[str, ...] = ()
    problem: AppError | None = field(default=None, compare=False)

    def named(self, role: Role) -> tuple[str, ...]:
        """Those of ``models`` that do this, as far as their names tell. Whoever named a model of another kind meant it for chats."""
        if not self.models or self.source == NATIVE:
            return self.models if role == "embedding" else ()
        ids = by_role(({"id": name} for name in self.models), self.endpoint.kind)
        return ids.of(role) if role != "chat" else tuple(name for name in self.models if name not in {*ids.embedding, *ids.speech})

    def may_serve(self, role: Role) -> bool:
        """Whether it could do this: not when other models were named, and no other."""
        return not self.models or bool(self.named(role))

    @property
    def name(self) -> str:
        """The name by which requests choose it."""
        return self.endpoint.provider


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a provider."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as it is shown. ``active`` marks the one that is used when a request names none."""

    name: str
    kind: str
    source: Source
    base_url: str | None
    models: tuple[Model, ...]
    active: bool


@dataclass(frozen=True, slots=True)
class ProviderTest:
    """Whether a provider works, and a sentence that says so or what is wrong."""

    works: bool
    message: str


def check_provider_name(name: str) -> str:
    """Return ``name`` if it can be one. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        message = f"'{name[:80]}' cannot name a provider: use up to 63 lower-case letters, digits, dots, hyphens and underscores."
        raise InvalidRequest(message)
    if name == NATIVE:
        raise InvalidRequest(f"'{NATIVE}' names the embedding model that is built in. Choose another name.")
    return name


def check_base_url(url: str) -> str:
    """Return ``url`` without a slash at its end. Raises InvalidRequest unless it is an http(s) address without credentials."""
    try:
        parts = urlsplit(url.strip())
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or not url.isprintable() or " " in url.strip():
        raise InvalidRequest("A provider's base URL must be an http or https address, such as http://127.0.0.1:8000/v1.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("A provider's base URL must not hold a user name or password; give the key separately.")
    if parts.query or parts.fragment:
        raise InvalidRequest("A provider's base URL must not hold a query or a fragment.")
    return url.strip().rstrip("/")


def check_key(key: str | None) -> str | None:
    """Return ``key`` without blanks around it, None when nothing is left. Raises InvalidRequest for what no HTTP header can carry."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest("An API key consists of visible ASCII characters. Copy it again.")
    return key or None
