"""Tool calls as servers write them, and the words in which they refuse tools."""

from typing import Any

import pytest

from adapters.chat import ChatRequest, Endpoint, ToolCall, ToolSpec
from adapters.model_failures import refused
from adapters.tool_calls import MAX_ARGUMENTS, MAX_REASONING, Extras, describe_tools, messages_of, tool_option_to_leave_out
from homeport.errors import UpstreamError

ENDPOINT = Endpoint("somewhere", "openai", "http://127.0.0.1:1/v1")
TOOL = ToolSpec("read", "Read.", {"type": "object"})
REQUEST = ChatRequest("m", [{"role": "user", "content": "hi"}], tools=(TOOL,))


def piece(name: str | None = None, arguments: Any = None, **rest: Any) -> dict[str, Any]:
    return {"tool_calls": [{**rest, "function": {"name": name, "arguments": arguments}}]}


def read(*pieces: dict[str, Any]) -> list[tuple[str, str]]:
    extras = Extras(ENDPOINT)
    for each in pieces:
        extras.read(each)
    return [(call.name, call.arguments) for call in extras.calls()]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece("f", "", index=0, id="a"), piece(None, "{}", index=0), piece("g", "", index=1, id="b")], id="as OpenAI"),
        pytest.param([piece("f", "{}", index=0, id="a"), piece("g", "{}", index=0, id="b")], id="all have the same index"),
        pytest.param([piece("f", "{}", index=0, id=""), piece("g", "{}", index=0, id="")], id="the same index and no id"),
        pytest.param([piece("f", "{}", id="a"), piece("g", "{}", id="b")], id="no index"),
        pytest.param([piece("f", "{"), piece(None, "}"), piece("g", "{}")], id="neither index nor id"),
        pytest.param([piece("f", "{", index=0, id="a"), piece(None, "}", index=0, id="z"), piece("g", "", index=1, id="b")], id="new ids"),
        pytest.param([piece("f", "{", index=0, id="a"), piece("f", "}", index=0, id="a"), piece("g", {}, index=1, id="b")], id="repeated"),
        pytest.param([piece("f", {}, index=0), {"tool_calls": ["?", {}, {"function": "?"}, None]}, piece("g", None, index=1)], id="odd"),
        pytest.param([piece("f", "{}", index=1, id="a"), piece("g", "{}", index=0, id="b")], id="in the order in which they come"),
    ],
)
def test_pieces_make_the_same_two_calls(pieces: list[dict[str, Any]]) -> None:
    assert read(*pieces) == [("f", "{}"), ("g", "{}")]


def test_pieces_of_two_calls_may_come_in_turn() -> None:
    begun = [piece("f", "", index=0, id="a"), piece("g", "", index=1, id="b")]
    assert read(*begun, *(piece(None, part, index=index) for part in ('{"x":', "1}") for index in (0, 1))) == [
        ("f", '{"x":1}'),
        ("g", '{"x":1}'),
    ]


def test_each_call_of_an_answer_has_an_id_of_its_own() -> None:
    extras = Extras(ENDPOINT)
    extras.read({"tool_calls": [{"id": each, "function": {"name": "f"}} for each in ("a", "a", None, 7, "x" * 100_000)]}, is_whole=True)
    ids = [call.id for call in extras.calls()]
    assert ids[0] == "a"
    assert len(set(ids)) == 5
    assert all(each.startswith("call_") for each in ids[1:])


def test_what_no_database_takes_is_left_out() -> None:
    extras = Extras(ENDPOINT)
    extras.read(piece("f\0", '{"a": "\0\ud83d"}', id="a\0"))
    assert extras.calls() == (ToolCall("a", "f", '{"a": "\ufffd"}'),)


def test_arguments_are_bounded_and_reasoning_is_cut() -> None:
    extras = Extras(ENDPOINT)
    extras.read(piece("f", "x" * MAX_ARGUMENTS, index=0))
    with pytest.raises(UpstreamError, match="arguments that are too long"):
        extras.read(piece(None, "x", index=0))
    for _ in range(3):
        extras.read({"reasoning": "y" * (MAX_REASONING - 10)})
    assert extras.reasoning == "y" * MAX_REASONING


REFUSALS = [
    (400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
    (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (500, "tools param requires --jinja flag"),
    (404, "No endpoints found that support tool use. To learn more about provider routing, visit: https://openrouter.ai/docs"),
    (400, "`tool calling` is not supported with this model"),
    (400, "Function calling is not enabled for models/gemma-3-27b-it"),
    (400, "deepseek-reasoner does not support Function Calling"),
    (400, "This model doesn't support tool use."),
    (400, "Unsupported parameter: 'tools' is not supported with this model."),
    (400, "tools is not supported in this model. For a list of supported models, refer to the documentation"),
    (400, "Unrecognized request argument supplied: tools"),
    (400, "litellm.UnsupportedParamsError: mine does not support parameters: ['tools'], for model=x"),
    (422, '{"detail":[{"type":"extra_forbidden","loc":["body","tools"],"msg":"Extra inputs are not permitted"}]}'),
]


@pytest.mark.parametrize(("status", "refusal"), REFUSALS)
def test_a_refusal_of_tools_is_understood(status: int, refusal: str) -> None:
    assert tool_option_to_leave_out(REQUEST, status, refusal) == "tools"
    assert tool_option_to_leave_out(ChatRequest("m", []), status, refusal) is None
    assert tool_option_to_leave_out(REQUEST, 401, refusal) is None


@pytest.mark.parametrize(
    "refusal",
    [
        "Invalid 'tools[0].function.name': string does not match pattern.",
        "Unknown parameter: 'tools[0].strict'.",
        "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
        "This model's maximum context length is 8192 tokens, of which 900 in the tools.",
        "Invalid schema for function 'read': type 'text' is not valid.",
    ],
)
def test_other_complaints_about_tools_are_no_refusal_of_tools(refusal: str) -> None:
    assert tool_option_to_leave_out(REQUEST, 400, refusal) is None


def test_a_choice_that_is_refused_is_left_out_and_a_forbidden_call_stays_impossible() -> None:
    required = ChatRequest("m", [], tools=(TOOL,), tool_choice="required")
    refusal = "deepseek-reasoner does not support this tool_choice"
    assert tool_option_to_leave_out(required, 400, refusal) == "tool_choice"
    assert describe_tools(required, frozenset()).keys() == {"tools", "tool_choice"}
    assert describe_tools(required, frozenset({"tool_choice"})).keys() == {"tools"}
    assert describe_tools(ChatRequest("m", [], tools=(TOOL,), tool_choice="none"), frozenset({"tool_choice"})) == {}


def test_results_told_as_text_stand_in_one_message_so_that_the_roles_alternate() -> None:
    calls = [{"id": each, "type": "function", "function": {"name": each, "arguments": "{}"}} for each in ("f", "g")]
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Well.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "f", "content": "1"},
        {"role": "tool", "tool_call_id": "g", "content": [{"type": "text", "text": "2"}]},
    ]
    told = messages_of(ChatRequest("m", messages), frozenset())
    assert told == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Well.\n[Called f with {}]\n[Called g with {}]"},
        {"role": "user", "content": "[Result of f]\n1\n\n[Result of g]\n2"},
    ]
    assert messages_of(ChatRequest("m", messages, tools=(TOOL,)), frozenset()) is messages
    assert messages_of(ChatRequest("m", messages[:1]), frozenset()) == messages[:1]


@pytest.mark.parametrize(
    "reason",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "Input is too long for requested model.",
    ],
)
def test_a_conversation_that_is_too_long_is_told_as_that(reason: str) -> None:
    assert type(refused(ENDPOINT, "m", 400, reason=reason)).__name__ == "ContextTooLong"
