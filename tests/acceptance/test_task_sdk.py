"""The official SDK's webhook, task, api.get_task and contract methods, unmodified, against a running server; and the clients of old."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from realtimex_sdk import PermissionDeniedError, RealtimeXSDK  # type: ignore[import-untyped]

from tests.acceptance.servers import TIMEOUT_S, Admin, Json, Server, Servers

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

GRANTED = ("webhook.trigger", "api.task", "api.contracts")
SECRET = "the secret of the contract"


def script(*steps: Json) -> str:
    """What the stand-in's model does, one step after the other."""
    return f"script: {json.dumps(steps)}"


async def status_of(app: RealtimeXSDK, task_id: str, *statuses: str) -> Json:
    """The task, once it is in one of these states."""
    async with asyncio.timeout(TIMEOUT_S):
        while (task := await app.api.get_task(task_id))["status"] not in statuses:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)
    return dict(task)


@pytest.fixture(scope="module", autouse=True)
def scripted(admin: Admin) -> Iterator[None]:
    """The default agent's model does what its message says."""
    admin.call("PUT", "/model-routes/chat", {"targets": [{"provider": "openai", "model": "script"}]})
    yield
    admin.call("PUT", "/model-routes/chat", {"targets": []})


@pytest.fixture
def app_id(admin: Admin) -> str:
    return admin.register("Order Desk", granted=GRANTED)


@pytest.fixture
def app(sdk: Sdk, app_id: str) -> RealtimeXSDK:
    return sdk(app_id=app_id, app_name="Order Desk")


@pytest.fixture
def developer(sdk: Sdk, admin: Admin) -> RealtimeXSDK:
    return sdk(api_key=admin.key)


@pytest.fixture(scope="module")
def signing(folder: Any, running_upstream: Any) -> Iterator[Server]:
    """A server that has a contract secret."""
    with Servers(folder) as servers:
        yield servers.start("signing", HOMEPORT_CONTRACT_SECRET=SECRET)


async def test_an_agent_is_triggered_and_does_the_task(app: RealtimeXSDK) -> None:
    answer = await app.webhook.trigger_agent(
        {"order": 7},
        auto_run=True,
        agent_name="@agent",
        workspace_slug="default",
        thread_slug="create_new",
        prompt=script({"say": "Shipped."}),
    )
    assert answer["success"] is True
    assert (answer["auto_run"], answer["message"], answer["event_type"]) == (True, "Agent triggered", "task.trigger")
    assert answer["task_uuid"] == answer["task_id"]
    task = await status_of(app, answer["task_uuid"], "completed", "failed")
    assert (task["status"], task["error"], task["action_type"]) == ("completed", None, "SDK_TRIGGER")
    assert task["title"].startswith("[Order Desk] ")
    assert task["result"]["text"] == "Shipped."
    (run,) = task["runs"]
    assert (run["agent_name"], run["workspace_slug"], run["status"], run["attempt_id"]) == ("@agent", "default", "completed", "run-1")
    assert run["thread_slug"] != "create_new"


@pytest.mark.parametrize("by_key", [False, True])
async def test_a_program_reports_on_a_task(app: RealtimeXSDK, developer: RealtimeXSDK, by_key: bool) -> None:
    caller = developer if by_key else app
    answer = await caller.webhook.trigger_agent({"type": "order"})
    task_id = answer["task_uuid"]
    assert answer["auto_run"] is False
    assert (await caller.task.claim(task_id, machine_id="m-1", attempt_id=1))["status"] == "claimed"
    started = await caller.task.start(task_id, machine_id="m-1")
    assert (started["status"], started["task_uuid"], started["event_type"]) == ("processing", task_id, "task.started")
    assert (await caller.task.progress(task_id, {"percent": 40, "message": "Hälfte"}, machine_id="m-1"))["status"] == "processing"
    assert (await caller.task.complete(task_id, {"summary": "done"}, machine_id="m-1"))["status"] == "completed"
    task = await caller.api.get_task(task_id)
    assert (task["status"], task["result"], task["progress"]) == ("completed", {"summary": "done"}, {"percent": 40, "message": "Hälfte"})
    with pytest.raises(Exception, match="is completed, and cannot become canceled"):
        await caller.task.cancel(task_id, "too late")


async def test_a_failed_and_a_canceled_task_say_why(app: RealtimeXSDK) -> None:
    ids = [(await app.webhook.trigger_agent({}))["task_uuid"] for _ in range(2)]
    await app.task.start(ids[0])
    assert (await app.task.fail(ids[0], "Connection timeout"))["status"] == "failed"
    assert (await app.task.cancel(ids[1], "not needed"))["status"] == "canceled"
    assert [(await app.api.get_task(each))["error"] for each in ids] == ["Connection timeout", "not needed"]


async def test_an_event_id_counts_once(app: RealtimeXSDK) -> None:
    event_id = str(uuid4())
    first, again = [await app.webhook.trigger_agent({}, event_id=event_id) for _ in range(2)]
    assert "deduplicated" not in first
    assert again == first | {"deduplicated": True}
    for _ in range(2):
        reported = await app.task.start(first["task_uuid"], event_id="start")
    assert reported["deduplicated"] is True


async def test_a_ping_needs_nobody(sdk: Sdk) -> None:
    assert (await sdk(app_id="nobody", app_name="Stranger").webhook.ping())["app_name"] == "Stranger"
    assert (await sdk().webhook.ping())["message"] == "pong"


async def test_a_signed_report_is_taken_and_a_forged_one_is_not(sdk: Sdk, signing: Server) -> None:
    assert signing.first_key is not None
    admin = Admin(signing.url, signing.first_key)
    with admin.http:
        app = sdk(url=signing.url, app_id=admin.register("Signer", granted=GRANTED))
    app.task.configure_contract(callback_secret=SECRET, sign_callbacks_by_default=True)
    task_id = (await app.webhook.trigger_agent({}))["task_uuid"]
    assert (await app.task.claim(task_id, machine_id="m-1", attempt_id="4"))["status"] == "claimed"
    stranger = sdk(url=signing.url)
    assert (await stranger.task.progress(task_id, {"ü": [1.5, None]}, callback_secret=SECRET, sign=True))["status"] == "processing"
    with pytest.raises(Exception, match="signature of this event is wrong"):
        await app.task.complete(task_id, callback_secret="guessed", sign=True)
    with pytest.raises(Exception, match="Missing required header: x-app-id"):
        await stranger.task.complete(task_id, sign=False)
    assert (await app.task.complete(task_id, {"z": 1, "a": 2}, sign=False))["status"] == "completed"


async def test_the_contract_is_discovered(app: RealtimeXSDK, admin: Admin) -> None:
    contract = await app.contract.get_local_app_v1()
    assert contract["version"] == "local-app-contract/v1"
    assert set(contract["supported_events"]) == set(contract["aliases"].values())
    assert contract["callback"]["event_id_header"] == "x-rtx-event-id"
    assert contract["callback"]["signature_header"] == "x-rtx-contract-signature"
    default = next(each for each in contract["capabilities"] if each["capability_id"] == "agent.at.agent")
    assert default["trigger"]["payload_template"]["agent_name"] == "@agent"


async def test_a_capability_is_found_and_triggered(server: Server, app: RealtimeXSDK, app_id: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers={"X-App-Id": app_id}, trust_env=False) as http:
        found = (await http.get("/contracts/local-app/v1/capabilities/search", params={"q": "AGENT"})).json()
        assert (found["query"], found["count"]) == ("AGENT", len(found["capabilities"]))
        one = (await http.get("/contracts/local-app/v1/capabilities/agent.at.agent")).json()
        assert one["capability"] in found["capabilities"]
        assert one["catalog_hash"] == (await app.contract.get_local_app_v1())["catalog_hash"]
        assert (await http.get("/contracts/local-app/v1/capabilities/agent.nobody")).json()["code"] == "CAPABILITY_NOT_FOUND"
        trigger = one["capability"]["trigger"]
        payload = trigger["payload_template"] | {"prompt": script({"say": "Here."})}
        answer = (await http.post(trigger["route"], json={"event": trigger["event"], "payload": payload})).json()
    assert (await status_of(app, answer["task_uuid"], "completed", "failed"))["result"]["text"] == "Here."


async def test_clients_of_old_say_who_they_are_in_the_body(server: Server, app: RealtimeXSDK, app_id: str) -> None:
    body = {"app_name": "Old", "app_id": app_id, "event": "trigger-agent", "payload": {"raw_data": {}, "auto_run": False, "prompt": ""}}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        task_id = (await http.post("/webhooks/realtimex", json=body)).json()["task_uuid"]
        report = {"app_id": app_id, "event": "task-start", "payload": {"task_uuid": task_id}}
        assert (await http.post("/webhooks/realtimex", json=report)).json()["status"] == "processing"
        for app_id_sent, code in (("", "MISSING_APP_ID"), ("unknown", "INVALID_APP_ID")):
            refused = await http.post("/webhooks/realtimex", json=report | {"app_id": app_id_sent})
            assert (refused.status_code, refused.json()["code"]) == (401, code)
    assert (await app.api.get_task(task_id))["title"] == "[Old] New task"


async def test_what_is_not_granted_is_asked_for(sdk: Sdk, admin: Admin) -> None:
    app_id = admin.register("Newcomer")
    app = sdk(app_id=app_id, app_name="Newcomer")
    triggering = asyncio.create_task(app.webhook.trigger_agent({}))
    await asyncio.to_thread(admin.decide, app_id, {"webhook.trigger": "granted"})
    task_id = (await triggering)["task_uuid"]
    admin.grant(app_id, "api.task", "denied")
    with pytest.raises(PermissionDeniedError):
        await app.api.get_task(task_id)
    with pytest.raises(Exception, match="PERMISSION_REQUIRED"):
        await sdk(app_id=admin.register("Other")).task.start(task_id)


async def test_another_apps_task_is_not_found(sdk: Sdk, admin: Admin, app: RealtimeXSDK) -> None:
    task_id = (await app.webhook.trigger_agent({}))["task_uuid"]
    other = sdk(app_id=admin.register("Other", granted=GRANTED))
    for attempt in (other.api.get_task(task_id), other.task.start(task_id)):
        with pytest.raises(Exception, match="There is no such task"):
            await attempt


async def test_a_person_has_a_waiting_task_run_and_cancels_another(app: RealtimeXSDK, admin: Admin) -> None:
    ids = [(await app.webhook.trigger_agent({"n": n}, prompt=script({"say": "By hand."})))["task_uuid"] for n in range(2)]
    listed = [each["id"] for each in admin.call("GET", "/tasks?status=pending&limit=200")["items"]]
    assert set(ids) <= set(listed)
    assert admin.call("POST", f"/tasks/{ids[0]}/run", {"agent": "@agent"})["runs"][0]["status"] == "pending"
    assert (await status_of(app, ids[0], "completed", "failed"))["result"]["text"] == "By hand."
    assert admin.call("POST", f"/tasks/{ids[1]}/cancel")["status"] == "canceled"
    shown = admin.call("GET", f"/tasks/{ids[0]}")
    assert (shown["raw_data"], shown["runs"][0]["session_id"]) == ({"n": 0}, shown["result"]["session_id"])
