"""Model providers as ``homeport models list`` shows them: everything that is known of each in one place."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.models import Limits, Model, Provider, Role


@dataclass(frozen=True, slots=True)
class ListedProvider:
    """A provider. ``models`` can chat; ``active`` says whether it answers chats by default."""

    name: str
    kind: str
    source: str
    base_url: str | None
    models: "tuple[Model, ...]"
    embedding_models: "tuple[Model, ...]"
    speech_models: tuple[str, ...]
    active: bool
    default_for: "list[Role]"
    fallback_for: "list[Role]"
    limits: "list[Limits]"

    @property
    def roles(self) -> list[str]:
        """What it is known to have models for."""
        known = (("chat", self.models), ("embedding", self.embedding_models), ("speech", self.speech_models))
        return [role for role, models in known if models]


async def list_all(home: "Home") -> list[ListedProvider]:
    """What answers, with its models, and what is configured but gives none; the default for chats first."""
    models, registry = home.models, home.models.registry
    chat, embedding, configured = (
        {each.name: each for each in providers}
        for providers in await asyncio.gather(models.providers(), models.embedding_providers(), models.configured_providers())
    )
    speech = {each.name: each.models for each in await models.speakers()}
    routes, limits = await registry.routes(), await registry.limits()
    # Known without asking; and an Ollama that nobody set but that answers.
    defaults = {each.name: list(each.default_for) for each in await registry.providers()}
    found: dict[Role, Iterable[Provider]] = {"chat": chat.values(), "embedding": embedding.values()}

    def default_for(name: str) -> "list[Role]":
        asked: list[Role] = [role for role, each in found.items() if any(one.active and one.name == name for one in each)]
        return defaults.get(name, asked)

    listed = [
        ListedProvider(
            name=each.name,
            kind=each.kind,
            source=each.source,
            base_url=each.base_url,
            models=chat[each.name].models if each.name in chat else (),
            embedding_models=embedding[each.name].models if each.name in embedding else (),
            speech_models=speech.get(each.name, ()),
            active="chat" in default_for(each.name),
            default_for=default_for(each.name),
            fallback_for=[role for role, targets in routes.items() if any(target.provider == each.name for target in targets[1:])],
            limits=[limit for limit in limits if limit.provider == each.name],
        )
        for each in (configured | embedding | chat).values()
    ]
    return sorted(listed, key=lambda each: (not each.active, each.source == "native"))


def show_limits(limits: "Limits", *, is_named: bool = True) -> str:
    """Limits in words."""
    parts = [
        f"{limits.timeout_s:g} s" if limits.timeout_s is not None else "",
        f"{limits.retries} {'retry' if limits.retries == 1 else 'retries'}" if limits.retries is not None else "",
        f"{limits.concurrency} at once" if limits.concurrency is not None else "",
    ]
    text = ", ".join(filter(None, parts)) or "none"
    return f"{limits.model}: {text}" if is_named and limits.model else text
