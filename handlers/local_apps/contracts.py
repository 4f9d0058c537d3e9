"""The contract of local apps, and what can be triggered: /contracts/local-app/v1."""

from collections.abc import Sequence
from typing import Any

from homeport.home import Home
from homeport.tasks.capabilities import Capability, catalog_hash, find_capability
from homeport.tasks.capabilities import list_capabilities as capabilities_of
from homeport.tasks.capabilities import search_capabilities as search_among
from homeport.tasks.contract_events import ACTIONS, ALIASES, ATTEMPT_PREFIX, CONTRACT_VERSION, EVENTS, OLD_NAMES
from homeport.tasks.signatures import ALGORITHM, EVENT_ID_HEADER, SIGNATURE_HEADER
from homeport.tasks.states import STATUS_AFTER
from homeport.tasks.webhook import PERMISSION
from homeport.workspaces import DEFAULT_WORKSPACE

STRICTNESS = "compatible"
WEBHOOK = "/webhooks/realtimex"
INPUT_SCHEMA = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "description": "What the agent is to do."}},
    "additionalProperties": True,
}
CALLBACK = {
    "event_id_header": EVENT_ID_HEADER,
    "signature_header": SIGNATURE_HEADER,
    "signature_algorithm": ALGORITHM,
    "signature_message": "event_id.event.task_uuid.attempt_id.timestamp.sha256(data)",
    "attempt_id_format": f"{ATTEMPT_PREFIX}{{number}}",
    "idempotency": "A repeated event_id of one caller counts once, for seven days.",
}


async def get_contract(home: Home) -> dict[str, Any]:
    """Return the contract."""
    capabilities = await _capabilities(home)
    contract = {
        "id": CONTRACT_VERSION,
        "version": CONTRACT_VERSION,
        "strictness": STRICTNESS,
        "events": ALIASES,
        "supported_events": EVENTS,
        "supported_legacy_events": OLD_NAMES,
        "aliases": ALIASES,
        "status_map": STATUS_AFTER,
        "legacy_action_map": ACTIONS,
        "catalog_hash": catalog_hash(capabilities),
        "capability_count": len(capabilities),
        "capabilities": [_capability(each) for each in capabilities],
        "callback": CALLBACK,
    }
    return {"success": True, "contract": contract}


async def list_capabilities(home: Home) -> dict[str, Any]:
    """List what can be triggered."""
    capabilities = await _capabilities(home)
    return _list(capabilities, capabilities)


async def search_capabilities(home: Home, q: str) -> dict[str, Any]:
    """List what can be triggered and matches."""
    capabilities = await _capabilities(home)
    return _list(capabilities, search_among(capabilities, q)) | {"query": q}


async def get_capability(home: Home, capability_id: str) -> dict[str, Any]:
    """Return one thing that can be triggered."""
    capabilities = await _capabilities(home)
    return _head(capabilities) | {"capability": _capability(find_capability(capabilities, capability_id))}


async def _capabilities(home: Home) -> list[Capability]:
    return capabilities_of(await home.agents.list())


def _list(catalog: Sequence[Capability], shown: Sequence[Capability]) -> dict[str, Any]:
    return _head(catalog) | {"count": len(shown), "capabilities": [_capability(each) for each in shown]}


def _head(catalog: Sequence[Capability]) -> dict[str, Any]:
    return {"success": True, "contract_version": CONTRACT_VERSION, "strictness": STRICTNESS, "catalog_hash": catalog_hash(catalog)}


def _capability(capability: Capability) -> dict[str, Any]:
    return {
        "capability_id": capability.id,
        "name": capability.name,
        "description": capability.description,
        "input_schema": INPUT_SCHEMA,
        "permission": PERMISSION,
        "trigger": {
            "event": "task.trigger",
            "route": WEBHOOK,
            "payload_template": {"auto_run": True, "agent_name": capability.agent, "workspace_slug": DEFAULT_WORKSPACE},
        },
    }
