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
