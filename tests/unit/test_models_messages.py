"""Messages in the spellings that clients use."""

from typing import Any

import pytest

from homeport.errors import InvalidRequest
from homeport.models.messages import normalize_messages

PICTURE = "data:image/png;base64,AAAA"


def content_of(*blocks: Any) -> Any:
    return normalize_messages([{"role": "user", "content": list(blocks)}])[0]["content"]


def test_a_text_stays_and_nulls_are_left_out() -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "", "name": None}]
    assert normalize_messages(messages) == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": ""}]


@pytest.mark.parametrize("kind", ["text", "input_text"])
def test_one_block_of_text_is_a_text(kind: str) -> None:
    assert content_of({"type": kind, "text": "hello"}) == "hello"


def test_blocks_of_text_stay_apart() -> None:
    assert content_of({"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}) == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]


@pytest.mark.parametrize(
    ("block", "image"),
    [
        ({"type": "image_url", "image_url": PICTURE}, {"url": PICTURE}),
        (
            {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
            {"url": "https://example.org/a.png", "detail": "low"},
        ),
        ({"type": "image_url", "image_url": {"url": PICTURE, "detail": "high"}}, {"url": PICTURE, "detail": "high"}),
        ({"type": "input_image", "image_url": {"url": PICTURE, "detail": None}}, {"url": PICTURE}),
    ],
)
def test_an_image_is_an_object_with_its_address(block: dict[str, Any], image: dict[str, Any]) -> None:
    assert content_of(block) == [{"type": "image_url", "image_url": image}]


@pytest.mark.parametrize(
    ("block", "file"),
    [
        ({"type": "input_file", "file_id": "file-1"}, {"file_id": "file-1"}),
        (
            {"type": "file", "file_url": "https://example.org/a.pdf", "filename": "a.pdf"},
            {"filename": "a.pdf", "file_data": "https://example.org/a.pdf"},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": None}},
            {"file_data": "data:application/pdf;base64,AA"},
        ),
    ],
)
def test_a_file_is_an_object_with_its_id_or_data(block: dict[str, Any], file: dict[str, Any]) -> None:
    assert content_of(block) == [{"type": "file", "file": file}]


def test_other_blocks_pass_as_they_are() -> None:
    blocks = [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, {"type": "new", "x": None}]
    assert content_of(*blocks) == blocks


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text"},
        {"type": "text", "text": None},
        {"type": "image_url"},
        {"type": "image_url", "image_url": {"detail": "low"}},
        {"type": "image_url", "image_url": "file:///etc/passwd"},
        {"type": "image_url", "image_url": "/etc/passwd"},
        {"type": "file"},
        {"type": "file", "file_url": "gs://bucket/a"},
        {"type": "file", "file_id": "ftp://example.org/a"},
    ],
)
def test_a_block_without_its_part_is_refused_with_its_place(block: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        content_of({"type": "text", "text": "look:"}, block)
    assert caught.value.code == "VALIDATION_ERROR"
    assert caught.value.problems[0].pointer.startswith("/messages/0/content/1")


def called(*calls: Any, **rest: Any) -> dict[str, Any]:
    return normalize_messages([{"role": "assistant", "content": None, "tool_calls": list(calls), **rest}])[0]


def test_tool_calls_and_their_results_pass_without_content() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "files__read", "arguments": '{"path": "a"}'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "text"}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "assistant", "tool_calls": [call]}, result]
    assistant = {"role": "assistant", "tool_calls": [call]}
    assert normalize_messages(messages) == [assistant, assistant, result]
    assert called(content="Nothing to do.") == {"role": "assistant", "content": "Nothing to do."}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ({"a": 1}, '{"a":1}'),
        ('{"a": ', "{}"),
        ("[1]", "{}"),
        ("", "{}"),
        (None, "{}"),
    ],
)
def test_arguments_go_back_to_a_provider_as_an_object_whatever_the_model_wrote(written: Any, told: str) -> None:
    message = called({"id": "call_1", "function": {"name": "f", "arguments": written}})
    assert message["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": told}}]


@pytest.mark.parametrize(("written", "told"), [("a.b/c", "a_b_c"), ("x" * 70, "x" * 64), ("", "unknown"), (None, "unknown")])
def test_a_name_goes_back_to_a_provider_as_one_that_it_takes(written: Any, told: str) -> None:
    assert called({"id": "call_1", "function": {"name": written}})["tool_calls"][0]["function"]["name"] == told


@pytest.mark.parametrize("call", ["x", {}, {"id": "1"}, {"id": 1, "function": {}}, {"id": "1", "function": "f"}])
def test_a_tool_call_that_is_none_is_refused(call: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        called(call)
    assert caught.value.problems[0].pointer == "/messages/0/tool_calls/0"
    with pytest.raises(InvalidRequest, match="tool calls are a list"):
        normalize_messages([{"role": "assistant", "tool_calls": "all"}])
