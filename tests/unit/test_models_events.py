"""Reading Server-Sent Events, and the parts of OpenAI's protocol that need no connection."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from adapters.chat import ChatRequest, Endpoint, Usage
from adapters.model_failures import refused, unreachable
from adapters.openai_wire import build_payload, options_refused_by, text_of
from adapters.sse import MAX_EVENT_BYTES, EventParser, EventTooLarge, ServerSentEvent
from homeport.errors import TooManyRequests

ENDPOINT = Endpoint("somewhere", "openai", "http://127.0.0.1:1/v1", "sk-very-secret")


def parse(*pieces: bytes) -> list[ServerSentEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)] + list(parser.finish())


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (b"data: a\n\n", [("message", b"a")]),
        (b"data:a\r\n\r\n", [("message", b"a")]),
        (b"data:  a\n\n", [("message", b" a")]),
        (b"data: a\ndata: b\ndata\n\n", [("message", b"a\nb\n")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), ("message", b"b")]),
        (b": comment\nid: 4\nretry: 9\nunknown: x\n\ndata: a\n\n", [("message", b"a")]),
        (b"event: lonely\n\ndata: a\n\n", [("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
        (b"data: no blank line after it", [("message", b"no blank line after it")]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(sent: bytes, events: list[tuple[str, bytes]]) -> None:
    assert parse(sent) == events


@given(st.lists(st.sampled_from([b"data: x\n", b"data:\xc3\xa4\r\n", b"event: e\n", b": c\n", b"\n", b"\r\n", b"data"])), st.data())
def test_it_does_not_matter_where_a_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)))))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert parse(*pieces) == parse(sent)


def test_a_line_and_an_event_are_bounded() -> None:
    piece = b"x" * 65_536
    with pytest.raises(EventTooLarge):
        parse(b"data: ", *[piece] * 17)
    with pytest.raises(EventTooLarge):
        parse(*[b"data: " + piece + b"\n"] * 17)
    assert len(parse(b"data: " + b"x" * (MAX_EVENT_BYTES - 6) + b"\n\n")) == 1


def test_openai_itself_is_told_the_limit_of_tokens_by_its_new_name() -> None:
    request = ChatRequest("gpt-any", [], max_tokens=5)
    openai = Endpoint("openai", "openai", "https://api.openai.com/v1")
    assert build_payload(request, options_refused_by(openai), is_stream=False)["max_completion_tokens"] == 5
    assert build_payload(request, options_refused_by(ENDPOINT), is_stream=False)["max_tokens"] == 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", "grün"),
        (None, ""),
        (7, ""),
        ("\ud83d", "\ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_text_can_always_be_sent_on(value: object, text: str) -> None:
    assert text_of(value) == text
    assert text_of(value).encode("utf-8").decode("utf-8") == text


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0.2", 1), ("-3", 1), ("nan", 5), ("soon", 5), (None, 5), ("1e30", 86_400), ("0", 1)]
)
def test_a_retry_time_is_a_sensible_number_of_seconds(header: str | None, seconds: int) -> None:
    error = refused(ENDPOINT, "any", 429, retry_after=header)
    assert isinstance(error, TooManyRequests)
    assert error.headers == {"Retry-After": str(seconds)}


def test_a_retry_time_may_be_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 <= int(refused(ENDPOINT, "any", 429, retry_after=header).headers["Retry-After"]) <= 100


def test_the_key_is_cut_out_of_what_is_logged() -> None:
    with capture_logs() as logs:
        unreachable(ENDPOINT, "Incorrect API key provided: sk-very-secret" + "x" * 1000)
    assert "sk-very-secret" not in repr(logs)
    assert len(logs[0]["reason"]) == 300
    assert "sk-very-secret" not in repr(ENDPOINT)


def test_usage_that_is_no_count_is_unknown() -> None:
    assert Usage.of({"prompt_tokens": 3, "completion_tokens": None, "total_tokens": "12"}) == Usage(3, None, None)
    assert Usage.of(None) == Usage()
    assert Usage.of({"prompt_tokens": True, "completion_tokens": -1}) == Usage()
