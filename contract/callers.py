"""Who calls the server in the contract run: a developer, an app that holds every permission an app can have, an app that holds none, and
somebody without any credential."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson

from contract.agent_hooks import make_agents
from contract.approval_hooks import make_approvals
from contract.launcher_hooks import BARE_APP, DOOMED_APP, HARMLESS, SPARE_APP
from contract.server import RunningServer
from contract.task_hooks import make_tasks
from contract.tool_hooks import SERVER, SPARE_SERVERS, STAND_IN

DEVELOPER = "developer"
APP = "app"
STRANGER = "app without grants"
ANONYMOUS = "nobody"
# A model provider whose limits may be changed: those of the one that chats go to must not be.
SPARE_PROVIDER = "spare"
TIMEOUT_S = 30.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Callers:
    """``file`` holds their credentials in the form that Schemathesis reads; ``ids`` are those of the key and the apps. ``document`` is the
    document that the server publishes: from a file, because Schemathesis leaves out the operation that it loads a document from. ``agents``
    names a run and sessions of the developer, ``tasks`` tasks of the developer, ``approvals`` what an agent asks."""

    file: Path
    document: Path
    ids: tuple[str, ...]
    agents: str
    tasks: str
    approvals: str


def make_callers(server: RunningServer, folder: Path, upstream_url: str) -> Callers:
    """Register the apps, grant the one of them what there is to grant, leave a permission request for a person to decide, add a
    provider with limits, and MCP servers that give tools."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=TIMEOUT_S, trust_env=False) as http:
        document = _send(http, "GET", "/openapi.json")
        operations = [operation for item in document["paths"].values() for operation in item.values()]
        permissions = {operation["x-permission"] for operation in operations if {"appId": []} in operation["security"]} - {"none"}
        app = _send(http, "POST", "/admin/v1/apps", {"name": "Contract app", "permissions": sorted(permissions)})
        for permission in permissions:
            _send(http, "PUT", f"/admin/v1/apps/{app['id']}/grants/{permission}", {"state": "granted"})
        stranger = _send(http, "POST", "/admin/v1/apps", {"name": "Stranger"})
        _send(http, "POST", "/api/local-apps/request-permission", {"app_id": stranger["id"], "permission": "llm.chat"})
        for spare in (SPARE_APP, BARE_APP, DOOMED_APP):
            _send(http, "POST", "/admin/v1/apps", {"name": "Spare", "id": spare, "launch": HARMLESS})
        _send(http, "PUT", f"/admin/v1/apps/{SPARE_APP}/grants/llm.chat", {"state": "granted"})
        _send(http, "POST", "/admin/v1/model-providers", {"name": SPARE_PROVIDER, "base_url": upstream_url})
        for query in ("", "?model=qwen3-8b"):
            _send(http, "PUT", f"/admin/v1/model-providers/{SPARE_PROVIDER}/limits{query}", {"retries": 0})
        for name in (SERVER, *SPARE_SERVERS):
            _send(http, "POST", "/admin/v1/mcp-servers", {"name": name, **STAND_IN})
        _send(http, "PUT", "/admin/v1/tool-rules", {"subject": "everybody", "server": SERVER, "decision": "allow"})
        agents = make_agents(partial(_send, http))
        tasks = make_tasks(partial(_send, http))
        approvals = make_approvals(partial(_send, http), http)
        (key,) = _send(http, "GET", "/admin/v1/api-keys")["items"]
    headers = {
        DEVELOPER: {"name": "Authorization", "value": f"Bearer {server.key}"},
        APP: {"name": "X-App-Id", "value": app["id"]},
        STRANGER: {"name": "X-App-Id", "value": stranger["id"]},
        # Schemathesis knows no caller without a header. This one says nothing.
        ANONYMOUS: {"name": "Accept", "value": "*/*"},
    }
    file = folder / "callers.json"
    file.write_bytes(orjson.dumps({"auth": [{"name": name, "fixedHeaders": [header]} for name, header in headers.items()]}))
    published = folder / "openapi.json"
    published.write_bytes(orjson.dumps(document))
    return Callers(file, published, (key["id"], app["id"], stranger["id"]), agents, tasks, approvals)


def _send(http: httpx.Client, method: str, path: str, body: Json | None = None) -> Any:
    return http.request(method, path, json=body).raise_for_status().json()
