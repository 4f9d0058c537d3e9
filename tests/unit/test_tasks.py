"""The local app contract without a database: names of events, attempts, signatures, the states of a task, capabilities."""

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import product
from typing import Any, get_args

import orjson
import pytest
from realtimex_sdk import contract as sdk  # type: ignore[import-untyped]

from homeport.agents import Agent, Limits
from homeport.clock import format_time
from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.tasks.capabilities import catalog_hash, find_capability, list_capabilities, search_capabilities
from homeport.tasks.contract_events import ACTIONS, ALIASES, EVENTS, Report, canonical_attempt_id, canonical_event
from homeport.tasks.signatures import Signed
from homeport.tasks.states import STATUS_AFTER, TaskStatus, is_repeated, next_status

SECRET = "a shared secret"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LEGAL = {
    ("pending", "task.claimed"): "claimed",
    ("pending", "task.started"): "processing",
    ("pending", "task.canceled"): "canceled",
    ("claimed", "task.started"): "processing",
    ("claimed", "task.progress"): "processing",
    ("claimed", "task.completed"): "completed",
    ("claimed", "task.failed"): "failed",
    ("claimed", "task.canceled"): "canceled",
    ("processing", "task.progress"): "processing",
    ("processing", "task.completed"): "completed",
    ("processing", "task.failed"): "failed",
    ("processing", "task.canceled"): "canceled",
    ("failed", "task.claimed"): "claimed",
    ("failed", "task.started"): "processing",
}
EVERY_STEP = list(product(get_args(TaskStatus), get_args(Report)))


def signed(**values: Any) -> Signed:
    parts = {
        "event_id": "e-1",
        "event": "task.completed",
        "task_id": "t-1",
        "attempt_id": "run-2",
        "timestamp": format_time(NOW),
        "data": {},
    }
    return Signed(**parts | values)


def signature_of_client(parts: Signed, secret: str = SECRET) -> str:
    signature: str = sdk.sign_contract_event(
        secret=secret,
        event_id=parts.event_id,
        event_type=parts.event,
        task_id=parts.task_id,
        attempt_id=parts.attempt_id,
        timestamp=parts.timestamp,
        payload=parts.data,
    )
    return signature


def agent(slug: str, name: str, description: str = "") -> Agent:
    return Agent(1, slug, name, description, None, NOW, "", None, None, [], Limits(), NOW)


def test_the_names_of_events_are_those_of_the_official_client() -> None:
    assert dict(sdk._EVENT_ALIASES) == ALIASES
    assert dict(sdk._LEGACY_ACTION_MAP) == ACTIONS
    assert set(EVENTS) == set(ALIASES.values())


@pytest.mark.parametrize("name", sorted(sdk._EVENT_ALIASES))
def test_the_name_of_an_event_is_understood_in_any_letter_case(name: str) -> None:
    assert {canonical_event(text) for text in (name, name.upper(), name.title(), f" {name}\n")} == {sdk.normalize_contract_event(name)}


@pytest.mark.parametrize("name", ["", " ", "task", "task_start", "trigger agent", "İ"])
def test_what_is_no_event_has_no_canonical_name(name: str) -> None:
    assert canonical_event(name) is None


@pytest.mark.parametrize("value", [None, "", " ", "3", " 3 ", "run-3", "run-x", "retry", 7, 0, -1, 2.5, {}])
def test_attempts_are_numbered_as_the_official_client_does(value: Any) -> None:
    assert canonical_attempt_id(value) == sdk.normalize_attempt_id(value)


def test_a_truth_value_is_no_attempt() -> None:
    assert canonical_attempt_id(True) is None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"result": {"b": 1, "a": [1.5, None, True, "é\u2028😀\0\x7f/"]}},
        {"error": "Verbindung getrennt: Zeitüberschreitung"},
        {"percent": 12.5, "message": "halfway", "nested": {"z": {"y": 1e21, "x": -0.0}}},
    ],
)
def test_what_the_official_client_has_signed_is_recognised(data: dict[str, Any]) -> None:
    parts = signed(data=data)
    assert parts.is_signed_by([SECRET], signature_of_client(parts))
    assert parts.sign(SECRET) == signature_of_client(parts)


# Made with Node: createHmac("sha256", secret) over the message, with JSON.stringify of {result: {z: "Zürich", a: [1, 2.5]}} in this order.
OF_TYPESCRIPT = "sha256=eecc0da37ba74cec8b240b67711ff9130b380a6f392fc6e81e3dd887b0aad6d6"


def test_what_the_client_of_typescript_has_signed_is_recognised() -> None:
    parts = signed(data={"result": {"z": "Zürich", "a": [1, 2.5]}})
    assert parts.is_signed_by([SECRET], OF_TYPESCRIPT)
    assert parts.sign(SECRET) != OF_TYPESCRIPT


# Written by Node's JSON.stringify.
OF_JAVASCRIPT = (
    '{"n":[0.00001,0.00001234,0.000001,-0.000001,9.9e-7,-5e-324,0.1,10000000000000000,12345678901234567000,123456789012345680000,'
    "-999999999999999900000,1e+21,-1.5e+21,1.7976931348623157e+308]}",
    '{"1e20":"1e-5 \\"1e-5\\" \\\\","a":1e+22,"é":"1e20"}',
)


@pytest.mark.parametrize("text", OF_JAVASCRIPT)
def test_numbers_are_signed_as_javascript_writes_them(text: str) -> None:
    parts = signed(data=orjson.loads(text))
    message = ".".join((parts.event_id, parts.event, parts.task_id, parts.attempt_id, parts.timestamp, sha256(text.encode()).hexdigest()))
    signature = f"sha256={hmac.new(SECRET.encode(), message.encode(), sha256).hexdigest()}"
    assert parts.is_signed_by([SECRET], signature)
    assert parts.sign(SECRET) != signature


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": "e-2"},
        {"event": "task.failed"},
        {"task_id": "t-2"},
        {"attempt_id": ""},
        {"timestamp": "2026-01-31T12:00:01.000Z"},
        {"data": {"x": 1}},
    ],
)
def test_a_signature_covers_every_part(change: dict[str, Any]) -> None:
    assert not signed(**change).is_signed_by([SECRET], signature_of_client(signed()))


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=" + 64 * "0", "é", "\ud800"])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    assert not signed().is_signed_by([SECRET], signature)


def test_a_signature_with_another_secret_is_refused() -> None:
    assert not signed().is_signed_by([SECRET], signature_of_client(signed(), "another"))


def test_data_that_is_nested_too_deeply_is_refused_with_a_sentence() -> None:
    data: dict[str, Any] = {}
    for _ in range(600):
        data = {"x": data}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        signed(data=data).is_signed_by([SECRET], "sha256=")


@pytest.mark.parametrize(("age", "is_fresh"), [(0, True), (299, True), (-299, True), (301, False), (-301, False)])
def test_what_was_sent_within_five_minutes_is_fresh(age: int, is_fresh: bool) -> None:
    assert signed(timestamp=format_time(NOW - timedelta(seconds=age))).is_fresh(NOW) == is_fresh


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2026-01-31T12:00:00"])
def test_what_says_no_time_is_not_fresh(timestamp: str) -> None:
    assert not signed(timestamp=timestamp).is_fresh(NOW)


@pytest.mark.parametrize(("status", "report"), EVERY_STEP)
def test_a_task_goes_only_where_it_may(status: TaskStatus, report: Report) -> None:
    if (status, report) in LEGAL:
        assert next_status(status, report) == LEGAL[status, report]
        return
    with pytest.raises(Conflict) as refused:
        next_status(status, report)
    assert refused.value.code == "TASK_STATE"
    assert f"is {status}, and cannot become {STATUS_AFTER[report]}" in refused.value.message


@pytest.mark.parametrize(("status", "report"), EVERY_STEP)
def test_only_what_does_no_harm_may_be_told_again(status: TaskStatus, report: Report) -> None:
    harmless = {("claimed", "task.claimed"), ("processing", "task.started")}
    assert is_repeated(status, report, is_holder=True) == ((status, report) in harmless | {("canceled", "task.canceled")})
    assert is_repeated(status, report, is_holder=False) == ((status, report) == ("canceled", "task.canceled"))


def test_agents_are_capabilities_with_ids_of_their_own() -> None:
    found = list_capabilities([agent("@agent", "Agent"), agent("at-agent", "Other"), agent("agent", "Third", "Files notes")])
    assert [(each.id, each.agent) for each in found] == [
        ("agent.agent", "agent"),
        ("agent.at-agent", "at-agent"),
        ("agent.at.agent", "@agent"),
    ]
    assert [each.description for each in found] == ["Files notes", "Other", "Agent"]
    assert find_capability(found, "agent.at.agent").agent == "@agent"
    with pytest.raises(NotFound):
        find_capability(found, "agent.nobody")


def test_a_search_finds_what_holds_every_word() -> None:
    found = list_capabilities([agent("notes", "Note Keeper", "Files notes"), agent("orders", "Orders", "Files orders")])
    assert [each.agent for each in search_capabilities(found, "FILES note")] == ["notes"]
    assert [each.agent for each in search_capabilities(found, "files")] == ["notes", "orders"]
    assert search_capabilities(found, "files nothing") == []


def test_the_hash_of_the_catalog_changes_with_the_capabilities_only() -> None:
    one, other = agent("notes", "Notes"), agent("orders", "Orders")
    assert catalog_hash(list_capabilities([one, other])) == catalog_hash(list_capabilities([other, one]))
    assert catalog_hash(list_capabilities([one])) != catalog_hash(list_capabilities([one, other]))
