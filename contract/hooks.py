"""What Schemathesis is told besides ``schemathesis.toml``: checks of our own, and how to treat the run's own keys."""

import base64
import os
import re
from collections.abc import Iterator
from itertools import count
from typing import Any
from zlib import crc32

import orjson
import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import Status
from schemathesis.engine.run.stateful import _executor

from adapters.audio.decoding import decode
from adapters.postgres import parse_guest_url
from contract.agent_hooks import STREAM as AGENT_STREAM
from contract.agent_hooks import check_agent_stream, keep_agents
from contract.approval_hooks import keep_approvals
from contract.callers import ANONYMOUS, SPARE_PROVIDER, STRANGER
from contract.exclusions import EXCLUSIONS
from contract.launcher_hooks import keep_apps
from contract.task_hooks import keep_tasks
from contract.tool_hooks import keep_tools
from homeport.contract.schemas import Schemas, Validator
from homeport.errors import InvalidRequest

CALLER = os.environ.get("CONTRACT_CALLER")
KEPT_IDS = frozenset(os.environ.get("CONTRACT_KEPT_IDS", "").split())
UPSTREAM = os.environ.get("CONTRACT_UPSTREAM")
NOBODY = "00000000-0000-4000-8000-000000000000"
# What chats and embeddings go to in this run: the stand-in, as the server's environment names it.
PROVIDER = "openai"
# The one that embeds without being told with which model.
EMBEDDER = "native"

LOOPBACK_DATABASE = "postgresql://user:pass@127.0.0.1:1/db"

AnyCase = Case[Any]

CURSOR = re.compile(r"[A-Za-z0-9_-]{1,1000}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

FITTING = "three numbers"
SPEECH_STREAM = "local_apps.tts.stream_speech"
LONGEST_SPEECH_S = 3600.0

# A moment of sound, as text: Schemathesis takes a body in which it finds bytes for one that is meant to be wrong.
SOUND = "RIFF\x44\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\x20\0\0\0" + 32 * "@"
# What machines lack that have no microphone.
MAY_FAIL_EVERYWHERE = frozenset({"POST /sdk/stt/listen"})

_prepared: list[Schemas] = []
_validators: dict[str, Validator] = {}


def definition(case: AnyCase) -> dict[str, Any]:
    """The operation of a case as the document writes it."""
    raw: dict[str, Any] = case.operation.definition.raw
    return raw


def _go_on_with_sequences() -> None:
    """Have sequences of requests go on after one that, repeated, went another way because the server has changed in between: Schemathesis
    would end the phase there, when few of them have been sent."""
    classify = _executor._classify_flaky
    restarts = count()

    def classify_and_go_on(*, ctx: Any, engine: Any, state: Any) -> Any:
        status, is_repeated, events = classify(ctx=ctx, engine=engine, state=state)
        enough = engine.config.generation_for(phase="stateful").max_examples
        is_short = ctx.completed_scenarios < enough and next(restarts) < enough
        return status, is_repeated or (status is Status.SUCCESS and is_short), events

    vars(_executor)["_classify_flaky"] = classify_and_go_on


_go_on_with_sequences()


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: AnyCase, response: Response) -> bool:
    """Whether a failure counts: not, when the answer is one of the exclusions."""
    operation, text = definition(case)["operationId"], response.content.decode(errors="replace")
    return not any(each.check in failure.checks and operation in each.operations and each.text in text for each in EXCLUSIONS)


@schemathesis.hook
def map_query(context: HookContext, query: Any) -> Any:
    """Leave out most drawn cursors: none of them is one that the server made, and its refusal hides the rest of the operation."""
    return _without_most(query, "cursor", CURSOR)


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Leave out most ids of new apps: they are drawn from apps that are there, and the conflict hides the rest of the operation. And give
    most vectors one length: drawn ones hardly ever have it, and that hides the rest, too."""
    match context.operation.label if context.operation else "":
        case "POST /admin/v1/apps":
            return _without_most(body, "id", UUID)
        case "POST /sdk/llm/vectors/upsert":
            return _with_fitting_vectors(body)
        case "POST /sdk/llm/vectors/query":
            return _with_fitting_vectors(_with_a_question(body))
    return body


def _with_fitting_vectors(body: Any) -> Any:
    """``body`` with vectors of three numbers, for a workspace of such, in nine of ten cases; what is meant to be wrong stays wrong."""
    if not isinstance(body, dict) or not crc32(repr(body).encode(errors="replace")) % 10:
        return body
    if _is_vector(body.get("vector")):
        return body | {"vector": _fitting(body["vector"]), "workspaceId": FITTING}
    records = body.get("vectors")
    if not isinstance(records, list) or not all(isinstance(each, dict) and _is_vector(each.get("vector")) for each in records):
        return body
    return body | {"vectors": [each | {"vector": _fitting(each["vector"])} for each in records], "workspaceId": FITTING}


def _with_a_question(body: Any) -> Any:
    """``body`` with a vector where it has neither one nor a text."""
    is_empty = isinstance(body, dict) and body.get("vector") is None and body.get("text") is None
    return body | {"vector": [1.0]} if is_empty else body


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(number) in (int, float) for number in value)


def _fitting(vector: list[float]) -> list[float]:
    return [*(max(-1.0, min(1.0, number)) for number in (vector[0], vector[-1])), 1.0]


def _without_most(values: Any, name: str, well_formed: re.Pattern[str]) -> Any:
    """``values`` without the named one in three of four cases, where it is well formed; what is meant to be wrong stays wrong."""
    value = values.get(name) if isinstance(values, dict) else None
    if isinstance(value, str) and well_formed.fullmatch(value) and crc32(repr(values).encode(errors="replace")) % 4:
        return {key: each for key, each in values.items() if key != name}
    return values


@schemathesis.hook
def before_call(context: HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
    """Keep the callers of this run from being changed or removed: a caller that nobody has is tried instead. And stay on this machine."""
    if case.operation.label == "POST /sdk/llm/vectors/register":
        _stay_here(case.body)
    if case.operation.label == "POST /sdk/llm/vectors/ingest":
        _keep_apart(case.body)
    if case.operation.label == "POST /sdk/stt/transcribe":
        _give_sound(case)
    if case.operation.label == "POST /sdk/stt/listen":
        _listen_shortly(case.body)
    if case.method != "GET":
        for name, value in case.path_parameters.items():
            if isinstance(value, str) and value in KEPT_IDS:
                case.path_parameters[name] = NOBODY
    _, module, operation = definition(case)["operationId"].split(".")
    if module == "models":
        _keep_models(case)
    if module in ("tasks", "webhooks"):
        keep_tasks(case, operation, is_right="requestBody" in definition(case) and _is_right(case))
    if module in ("agents", "agent_runs", "agent_sessions"):
        keep_agents(case, operation, is_right="requestBody" in definition(case) and _is_right(case))
    if module == "approvals":
        keep_approvals(case, operation, is_right="requestBody" in definition(case) and _is_right(case))
    if module in ("apps", "grants"):
        keep_apps(case, operation, is_right="requestBody" in definition(case) and _is_right(case))
    if module in ("mcp", "mcp_servers", "tools"):
        keep_tools(case, operation, is_right="requestBody" in definition(case) and _is_right(case))


def _keep_models(case: AnyCase) -> None:
    """Have the server call nobody but the stand-in, and let chats still find a model; what is meant to be wrong stays wrong."""
    names, operation = case.path_parameters, definition(case)["operationId"].rpartition(".")[2]
    body: Any = case.body
    if names.get("name") == PROVIDER and operation in {"set_limits", "reset_limits"}:
        names["name"] = SPARE_PROVIDER
    if names.get("name") == SPARE_PROVIDER and operation == "remove_provider":
        names["name"] = NOBODY
    if operation == "register_provider" and _is_right(case):
        case.body = {**body, "base_url": UPSTREAM, "kind": "openai", "models": ["echo"]}
    if operation == "set_route" and _is_right(case):
        provider = EMBEDDER if names.get("role") == "embedding" else PROVIDER
        case.body = {"targets": [{"provider": provider}] if body["targets"] else []}


def _is_right(case: AnyCase) -> bool:
    """Whether the body is what the operation takes."""
    schema = definition(case)["requestBody"]["content"]["application/json"]["schema"]
    return isinstance(case.body, dict) and not _schemas(case).compile(schema).problems(case.body, "body")


def _keep_apart(body: Any) -> None:
    """Fill a workspace of its own from texts: in the others, vectors of another length would be refused from then on."""
    workspace = body.get("workspaceId") if isinstance(body, dict) else ""
    if workspace is None or (isinstance(workspace, str) and re.fullmatch(r"[^\x00-\x1f\x7f]{1,200}", workspace)):
        body["workspaceId"] = "texts"


def _give_sound(case: AnyCase) -> None:
    """Put a sound in the place of most drawn ones: those are none, and their refusal hides the rest; what is meant to be wrong stays
    wrong."""
    body: Any = case.body
    sound = body.get("audio") if isinstance(body, dict) else None
    # A drawn file is a text without letters to those who look for one.
    if isinstance(sound, str) and (sound or type(sound) is not str) and crc32(repr(body).encode(errors="replace")) % 4:
        schema = definition(case)["requestBody"]["content"][case.media_type]["schema"]
        # A form has no types: what is not a text in it would become one.
        if not _schemas(case).compile(schema).problems(body | {"audio": "-"}, "body"):
            body["audio"] = base64.b64encode(SOUND.encode()).decode() if case.media_type == "application/json" else SOUND


def _listen_shortly(body: Any) -> None:
    """Where there is a microphone it is not listened to for minutes; what is meant to be wrong stays wrong."""
    timeout = body.get("timeout") if isinstance(body, dict) else ""
    if timeout is None or (type(timeout) is int and 100 <= timeout <= 120_000):
        body["timeout"] = 100 + (timeout or 0) % 100


def _stay_here(body: Any) -> None:
    """Put an address of this machine, which the server refuses, in the place of a drawn host that it would look for in the network."""
    config = body.get("config") if isinstance(body, dict) else None
    if isinstance(config, dict) and isinstance(config.get("databaseUrl"), str):
        try:
            parse_guest_url(config["databaseUrl"])
        except InvalidRequest:
            return  # refused before anybody looks for a host
        config["databaseUrl"] = LOOPBACK_DATABASE


@schemathesis.check
class EveryOperationSucceeds:
    """Each operation that the caller may use has answered with success at least once: tests that are only ever refused prove little."""

    def __init__(self) -> None:
        self.tested: set[str] = set()
        self.succeeded: set[str] = set()

    def after_response(self, ctx: CheckContext, response: Response, case: AnyCase) -> None:
        """Note what came back."""
        is_public = not definition(case)["security"]
        if CALLER != STRANGER and (is_public or CALLER != ANONYMOUS):
            self.tested.add(case.operation.label)
            if 200 <= response.status_code < 300:
                self.succeeded.add(case.operation.label)

    def after_run(self, ctx: CheckContext) -> None:
        """Name the operations that never succeeded."""
        if missing := self.tested - self.succeeded - MAY_FAIL_EVERYWHERE:
            raise AssertionError(f"These operations never answered with success: {', '.join(sorted(missing))}")


@schemathesis.check
def a_stranger_is_refused(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """An app that holds nothing gets 403 wherever a permission is needed, and 401 where apps cannot call at all, whatever it sends."""
    operation = definition(case)
    if case.auth_identity != STRANGER or not operation["security"] or _is_refused_at_the_edge(case, response):
        return
    if {"appId": []} not in operation["security"]:
        assert response.status_code == 401, f"An app got {response.status_code}, expected 401"
    elif operation["x-permission"] != "none":
        assert response.status_code == 403, f"An app without the permission got {response.status_code}, expected 403"
        assert response.json()["permission"] == operation["x-permission"], "The refusal names another permission"


@schemathesis.check
def nobody_gets_in(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """Who sends no credential, or one that is not valid, gets 401 and how to authenticate wherever the document does not say that nobody
    need be known."""
    security = definition(case)["security"]
    if case.auth_identity != ANONYMOUS or not security or {} in security or _is_refused_at_the_edge(case, response):
        return
    assert response.status_code == 401, f"Nobody got {response.status_code}, expected 401"
    assert response.headers.get("www-authenticate"), "A refusal does not say how to authenticate"


def _is_refused_at_the_edge(case: AnyCase, response: Response) -> bool:
    """Whether the answer says nothing about the caller: another method, a path that is no operation's, a body that is too large."""
    if case.method.upper() != case.operation.method.upper():
        return True
    is_path_wrong = case.meta is not None and case.meta.is_negative_at(ParameterLocation.PATH)
    return response.status_code == 413 or (response.status_code == 404 and is_path_wrong)


@schemathesis.deserializer("audio/wav", "audio/mpeg")
def read_audio(context: object, response: Response) -> str:
    """An audio file as the document declares it: a text of bytes."""
    return response.content.decode("latin-1")


@schemathesis.check
def speech_can_be_played(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """An audio file that is answered with can be decoded, and holds something."""
    if response.headers.get("content-type", [""])[0].startswith("audio/"):
        assert decode(response.content, max_s=LONGEST_SPEECH_S).duration_s > 0, "The audio file is empty"


@schemathesis.check
def streams_are_whole_and_as_declared(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """The data of each event is what ``x-stream-event`` declares, and the stream ends as it should or with an error, not both."""
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    events = list(_events(response.content.decode()))
    validator = _stream_data(case)
    for name, data in events:
        problems = validator.problems(data, name)
        assert not problems, f"An event says what is not declared: {problems[0].pointer} {problems[0].detail}\n{name}: {data!r}"
    assert events, "The stream ended without an event"
    *pieces, (name, last) = events
    assert "error" not in {name for name, _ in pieces}, "The stream went on after an error"
    if name == "error":
        # Nobody but the server itself makes this one: it is what a 500 would have been.
        assert last["code"] != "INTERNAL_ERROR", f"The server failed in the stream: {last}"
    elif definition(case)["operationId"] == SPEECH_STREAM:
        _check_speech(events)
    elif definition(case)["operationId"] == AGENT_STREAM:
        check_agent_stream([data for _, data in events])
    else:
        _check_chat([data for _, data in events])


def _check_speech(events: list[tuple[str, Any]]) -> None:
    """What will come, every chunk in order, and that it is complete."""
    total = events[0][1].get("total")
    assert [name for name, _ in events] == ["info", *(["chunk"] * total), "done"], "The stream of a speech is not whole"
    assert [(data["index"], data["total"]) for _, data in events[1:-1]] == [(number, total) for number in range(total)]


def _check_chat(said: list[Any]) -> None:
    """Pieces, of which the last one closes, and ``[DONE]``."""
    *pieces, last = said
    assert last == "[DONE]", f"The stream broke off after {last!r}"
    closes = [isinstance(data, dict) and data.get("close") for data in pieces]
    assert closes == [False] * (len(pieces) - 1) + [True], "The last piece, and no other, has to close"


def _events(text: str) -> Iterator[tuple[str, Any]]:
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            data = fields["data"]
            yield fields.get("event", "message"), orjson.loads(data) if data.startswith("{") else data


def _stream_data(case: AnyCase) -> Validator:
    operation = definition(case)
    name = operation["operationId"]
    if name not in _validators:
        _validators[name] = _schemas(case).compile(operation["x-stream-event"])
    return _validators[name]


def _schemas(case: AnyCase) -> Schemas:
    """The schemas of the one document of this process: preparing them takes longer than a request."""
    if not _prepared:
        _prepared.append(Schemas(case.operation.schema.raw_schema))
    return _prepared[0]
