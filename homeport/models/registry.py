"""What an operator decides about providers: who answers by default, who takes over, and within which limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.model_catalog import Role
from homeport.errors import InvalidRequest, NotFound
from homeport.models.environment import find_known_provider
from homeport.models.limits import Limits, check_limits
from homeport.models.providers import NATIVE, ConfiguredProvider, Source
from homeport.models.resolving import OLLAMA, Resolver
from homeport.models.routes import ROLES, Routes, Target, check_route
from homeport.models.stored_providers import StoredProviders


@dataclass(frozen=True, slots=True)
class RegisteredProvider:
    """A provider as an operator set it, without its key. ``models`` are those that were named; ``default_for`` is what it answers."""

    name: str
    kind: str
    source: Source
    base_url: str | None
    models: tuple[str, ...]
    default_for: tuple[Role, ...]


class Registry:
    """The providers as they were set, their defaults, fallbacks and limits. Other server processes follow a change within seconds."""

    def __init__(self, stored: StoredProviders, resolver: Resolver) -> None:
        self._stored = stored
        self._resolver = resolver

    async def providers(self) -> list[RegisteredProvider]:
        """What the database and the environment configure, and what is built in, by name. Nobody is asked."""
        found = await self._resolver.configured()
        built_in = await self._resolver.find("embedding", NATIVE)
        return sorted(
            [await self._show(each) for each in ([*found, built_in] if built_in and built_in not in found else found)],
            key=lambda each: each.name,
        )

    async def provider(self, name: str) -> RegisteredProvider:
        """One provider. Raises NotFound."""
        if (found := await self._resolver.find("embedding", name)) is None:
            raise _unknown(name)
        return await self._show(found)

    async def routes(self) -> Routes:
        """The default and the fallbacks of each role for which they were set."""
        return (await self._stored.read()).routes

    async def set_route(self, role: Role, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Set the default of a role and its fallbacks, in order; no targets: as if nothing had ever been set.

        Raises NotFound for a provider that there is not, InvalidRequest for fallbacks that cannot be ones.
        """
        check_route(role, targets)
        for target in targets:
            await self._check_provider(target.provider)
            if role == "chat" and target.provider == NATIVE:
                raise InvalidRequest(f"The provider '{NATIVE}' makes embeddings only; it cannot chat.")
        await self._stored.set_route(role, targets)
        return tuple(targets)

    async def limits(self) -> list[Limits]:
        """All limits that are set, by provider and model."""
        return (await self._stored.read()).limits.all()

    async def find_limits(self, target: Target) -> Limits | None:
        """What is set for exactly this provider, or model of it."""
        return (await self._stored.read()).limits.get(target)

    async def set_limits(self, limits: Limits) -> Limits:
        """Set the limits of a provider or a model in place of those before. Raises NotFound for a provider that there is not."""
        check_limits(limits)
        await self._check_provider(limits.provider)
        await self._stored.set_limits(limits)
        return limits

    async def reset_limits(self, target: Target) -> Limits:
        """Forget the limits of a provider or a model; returns them. Raises NotFound when there were none."""
        return await self._stored.reset_limits(target)

    async def _check_provider(self, name: str) -> None:
        """Raise NotFound for a name that nobody can have meant. A server may be given keys that a command is not, so known names pass."""
        if name in (NATIVE, OLLAMA) or find_known_provider(name):
            return
        if not any(each.name == name for each in await self._resolver.configured()):
            raise _unknown(name)

    async def _show(self, provider: ConfiguredProvider) -> RegisteredProvider:
        endpoint = provider.endpoint
        defaults = {role: await self._resolver.known_default(role) for role in ROLES}
        roles = tuple(role for role, default in defaults.items() if default is not None and default.name == provider.name)
        return RegisteredProvider(provider.name, endpoint.kind, provider.source, endpoint.base_url, provider.models, roles)


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no model provider '{name[:80]}'. Show all of them: homeport models list")
