"""What can be triggered: every agent is a capability, with an id that stays the same as long as the agent has its slug."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import orjson

from homeport.agents import Agent
from homeport.errors import NotFound

_PREFIX = "agent."
# Slugs hold no dots: nothing else gets such an id.
_HANDLE_PREFIX = "agent.at."


@dataclass(frozen=True, slots=True)
class Capability:
    """Something that work can be handed over to: ``agent`` is the slug of who does it."""

    id: str
    name: str
    description: str
    agent: str


def list_capabilities(agents: Iterable[Agent]) -> list[Capability]:
    """The capabilities that agents are, by id."""
    return sorted((_capability(agent) for agent in agents), key=lambda each: each.id)


def find_capability(capabilities: Iterable[Capability], capability_id: str) -> Capability:
    """The one with this id. Raises NotFound (CAPABILITY_NOT_FOUND)."""
    for each in capabilities:
        if each.id == capability_id:
            return each
    raise NotFound(f"There is no capability '{capability_id[:80]}'.", code="CAPABILITY_NOT_FOUND")


def search_capabilities(capabilities: Iterable[Capability], query: str) -> list[Capability]:
    """Those whose id, name or description hold every word of ``query``, in any letter case."""
    words = query.casefold().split()
    return [each for each in capabilities if all(word in f"{each.id} {each.name} {each.description}".casefold() for word in words)]


def catalog_hash(capabilities: Sequence[Capability]) -> str:
    """A text that changes when the capabilities do, and only then."""
    return hashlib.sha256(orjson.dumps([asdict(each) for each in capabilities], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _capability(agent: Agent) -> Capability:
    capability_id = f"{_HANDLE_PREFIX}{agent.slug[1:]}" if agent.slug.startswith("@") else f"{_PREFIX}{agent.slug}"
    # Clients refuse a capability without a description.
    return Capability(capability_id, agent.display_name, agent.description or agent.display_name, agent.slug)
