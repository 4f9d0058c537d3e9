"""What a model is shown of a conversation: whatever was said, and however small the window, it can be sent."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.agents.context import LEAST_WINDOW, LEFT_OUT, as_text, estimate, fit, in_call_order, repair

TEXTS = st.text(max_size=40) | st.integers(1, 2000).map(lambda size: "word " * size) | st.integers(1, 2000).map(lambda size: "字" * size)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, *calls: str, arguments: str = "{}") -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [{"id": each, "type": "function", "function": {"name": "echo", "arguments": arguments}} for each in calls]
    return message


def result(call: str, text: str = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": text}


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What may be in the database: turns with rounds of calls, some of them interrupted, results in any order; the last is a question,
    and what was done for it."""
    messages: list[dict[str, Any]] = []
    for turn in range(draw(st.integers(1, 6))):
        messages.append(user(draw(TEXTS)))
        for round_ in range(draw(st.integers(0, 4))):
            ids = [f"{turn}-{round_}-{number}" for number in range(draw(st.integers(1, 4)))]
            messages.append(said(draw(TEXTS), *ids, arguments='{"text": "' + "x" * draw(st.integers(0, 3000)) + '"}'))
            messages += [result(each, draw(TEXTS)) for each in draw(st.permutations(ids)) if draw(st.integers(0, 9))]
        if draw(st.booleans()):
            messages.append(said(draw(TEXTS)))
    return [*messages, user(draw(TEXTS))] if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1] else messages


def assert_sendable(messages: list[dict[str, Any]]) -> None:
    """As OpenAI, vLLM and Ollama want it: each call has its result right after it, in order, and there is no other result."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert waiting
            assert message["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    assert not waiting


@settings(max_examples=60)
@given(conversations())
def test_whatever_became_of_its_runs_a_conversation_can_be_sent(messages: list[dict[str, Any]]) -> None:
    repaired = repair(messages)
    assert_sendable(repaired)
    spoken = [message["role"] for message in repaired if message["role"] != "tool"]
    assert all("assistant" in pair for pair in pairwise(spoken))
    assert [m for m in messages if m["role"] == "user"] == [m for m in repaired if m["role"] == "user"]
    assert repair(repaired) == repaired


@settings(max_examples=60)
@given(conversations(), TEXTS, st.integers(0, 20_000))
def test_what_is_cut_can_be_sent_and_is_within_the_window(messages: list[dict[str, Any]], system: str, budget: int) -> None:
    repaired = repair(messages)
    fitted = fit(system, repaired, budget)
    head, rest = (fitted[:1], fitted[1:]) if fitted[0]["role"] == "system" else ([], fitted)
    assert_sendable(rest)
    assert all(message["role"] != "system" for message in rest)
    assert bool(head) >= bool(system)
    assert any(message["role"] == "user" for message in rest)
    assert estimate(fitted) <= max(budget, LEAST_WINDOW)


@settings(max_examples=60)
@given(conversations(), TEXTS)
def test_what_fits_is_shown_whole(messages: list[dict[str, Any]], system: str) -> None:
    repaired = repair(messages)
    whole = ([{"role": "system", "content": system}] if system else []) + repaired
    assert fit(system, repaired, estimate(whole) * 3) == whole


@settings(max_examples=60)
@given(conversations())
def test_without_tools_everything_is_told_in_words(messages: list[dict[str, Any]]) -> None:
    told = as_text(repair(messages))
    assert all(message["role"] in ("user", "assistant") and "tool_calls" not in message for message in told)


def test_the_oldest_turns_go_first_and_a_note_says_so() -> None:
    messages = [message for number in range(20) for message in (user(f"question {number} " + "x " * 200), said(f"answer {number}"))]
    fitted = fit("Be brief.", [*messages, user("the last")], 1000)
    assert fitted[0] == {"role": "system", "content": f"Be brief.\n\n{LEFT_OUT}"}
    kept = [message["content"].split(" x")[0] for message in fitted[1:]]
    assert kept[-3:] == ["question 19", "answer 19", "the last"]
    assert "question 0" not in kept


def test_old_results_of_tools_are_shortened_before_a_turn_is_left_out() -> None:
    messages = [user("read it"), said("", "1"), result("1", "text " * 4000), said("It says text."), user("and now?")]
    fitted = fit("", messages, 2000)
    assert [message["role"] for message in fitted] == ["user", "assistant", "tool", "assistant", "user"]
    assert len(fitted[2]["content"]) < 700
    assert "characters are left out here" in fitted[2]["content"]


def test_a_huge_question_is_cut_in_the_middle() -> None:
    fitted = fit("", [user("begin " + "x" * 100_000 + " end")], 1000)
    assert fitted[-1]["content"].startswith("begin x")
    assert fitted[-1]["content"].endswith("x end")


def test_results_stand_in_the_order_of_their_calls() -> None:
    messages = [user("go"), said("", "a", "b", "c"), result("c"), result("a"), result("b"), said("done")]
    assert [m.get("tool_call_id") for m in in_call_order(messages, lambda each: each)] == [None, None, "a", "b", "c", None]
