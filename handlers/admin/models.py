"""Model providers, who answers by default, who takes over, and limits. Keys go in and never come out."""

from dataclasses import asdict
from typing import Any

from homeport.home import Home
from homeport.models import Limits, RegisteredProvider, Role, Target
from homeport.paging import slice_page


async def list_providers(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List providers by name."""
    providers = await home.models.registry.providers()
    return slice_page(providers, lambda each: each.name, scope="model_providers", limit=limit, cursor=cursor).render(_provider)


async def register_provider(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Add a provider."""
    values = {name: body.get(name) for name in ("kind", "base_url", "api_key")}
    added = await home.models.add_provider(body["name"], **values, models=body.get("models", ()), is_default=body.get("is_default", False))
    return _provider(await home.models.registry.provider(added.name))


async def get_provider(home: Home, name: str) -> dict[str, Any]:
    """Return one provider."""
    return _provider(await home.models.registry.provider(name))


async def remove_provider(home: Home, name: str) -> dict[str, Any]:
    """Remove a provider that was added."""
    removed = await home.models.registry.provider(name)
    await home.models.remove_provider(name)
    return _provider(removed)


async def test_provider(home: Home, name: str) -> dict[str, Any]:
    """Try a provider."""
    await home.models.registry.provider(name)
    tested = await home.models.test_provider(name)
    return {"works": tested.works, "message": tested.message}


async def get_route(home: Home, role: Role) -> dict[str, Any]:
    """Return the default of a role and its fallbacks."""
    return _route(role, (await home.models.registry.routes()).get(role, ()))


async def set_route(home: Home, role: Role, body: dict[str, Any]) -> dict[str, Any]:
    """Set the default of a role and its fallbacks."""
    targets = [Target(each["provider"], each.get("model")) for each in body["targets"]]
    return _route(role, await home.models.registry.set_route(role, targets))


async def list_limits(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List limits by provider and model."""
    limits = await home.models.registry.limits()
    return slice_page(limits, lambda each: f"{each.provider}/{each.model or ''}", scope="model_limits", limit=limit, cursor=cursor).render(
        asdict
    )


async def set_limits(home: Home, name: str, body: dict[str, Any], model: str | None = None) -> dict[str, Any]:
    """Set the limits of a provider or a model."""
    return asdict(await home.models.registry.set_limits(Limits(name, model, **body)))


async def reset_limits(home: Home, name: str, model: str | None = None) -> dict[str, Any]:
    """Forget the limits of a provider or a model."""
    return asdict(await home.models.registry.reset_limits(Target(name, model)))


def _provider(provider: RegisteredProvider) -> dict[str, Any]:
    return asdict(provider)


def _route(role: Role, targets: tuple[Target, ...]) -> dict[str, Any]:
    return {"role": role, "targets": [asdict(target) for target in targets]}
