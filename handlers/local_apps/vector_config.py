"""Where the calling app's vectors are kept: /sdk/llm/vectors/providers, /config, /register."""

from typing import Any

from homeport.home import Home
from homeport.identity import Principal
from homeport.vectors.providers import PROVIDERS


async def list_providers() -> dict[str, Any]:
    """List the kinds of database that can be registered."""
    providers = [
        {
            "name": provider.name,
            "label": provider.label,
            "description": provider.description,
            "fields": [
                {"name": each.name, "label": each.label, "type": each.type, "placeholder": each.placeholder} for each in provider.fields
            ],
        }
        for provider in PROVIDERS
    ]
    return {"success": True, "providers": providers}


async def get_config(home: Home, principal: Principal) -> dict[str, Any]:
    """Show the configuration, without secrets."""
    shown = await home.vectors.configs.show(principal)
    return {"success": True, "provider": shown.provider, "config": shown.config}


async def register_config(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Connect to a database and keep it as the app's own."""
    await home.vectors.configs.register(principal, body["provider"], body.get("config"))
    return {"success": True, "message": "Vector configuration registered successfully."}
