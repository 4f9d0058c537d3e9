"""Embeddings as data: how texts are split into requests, and what counts as vectors."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.chat import Endpoint
from adapters.embedding import A_TEXT
from adapters.model_failures import refused
from adapters.openai_wire import parse_answer, vectors_of
from homeport.errors import InvalidRequest, UpstreamError
from homeport.models.embedding import MAX_TEXTS_AT_ONCE, check_texts, limits_of, split
from homeport.models.environment import DEFAULT_EMBEDDING_LIMITS, KNOWN_PROVIDERS, EmbeddingLimits
from homeport.models.providers import ConfiguredProvider

SOMEWHERE = Endpoint("somewhere", "openai", "http://127.0.0.1:9/v1", "sk-secret")


def data(*vectors: Any) -> list[dict[str, Any]]:
    return [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]


@pytest.mark.parametrize(
    ("lengths", "limits", "parts"),
    [
        ([1, 1, 1, 1, 1], EmbeddingLimits(2), [2, 2, 1]),
        ([1, 1], EmbeddingLimits(2), [2]),
        ([5, 5, 5], EmbeddingLimits(10, 10), [2, 1]),
        ([3, 20, 3, 3], EmbeddingLimits(10, 10), [1, 1, 2]),
        ([20], EmbeddingLimits(10, 10), [1]),
        ([1] * 600, EmbeddingLimits(2048), [MAX_TEXTS_AT_ONCE, MAX_TEXTS_AT_ONCE, 600 - 2 * MAX_TEXTS_AT_ONCE]),
    ],
)
def test_texts_are_split_by_their_number_and_their_length_and_none_is_lost(
    lengths: list[int], limits: EmbeddingLimits, parts: list[int]
) -> None:
    texts = [f"{index}".ljust(length, "x")[:length] for index, length in enumerate(lengths)]
    found = list(split(texts, limits))
    assert [len(part) for part in found] == parts
    assert [text for part in found for text in part] == texts


def test_the_limits_are_those_of_a_provider_that_is_known_by_name_and_address() -> None:
    openai = next(known for known in KNOWN_PROVIDERS if known.name == "openai")
    assert limits_of(Endpoint("openai", "openai", openai.base_url)) == EmbeddingLimits(2048)
    assert limits_of(Endpoint("cohere", "cohere_chat")) == EmbeddingLimits(96)
    assert limits_of(Endpoint("gemini", "gemini")).texts == 100  # type: ignore[union-attr]
    assert limits_of(Endpoint("openai", "openai", "http://127.0.0.1:8080/v1")) == DEFAULT_EMBEDDING_LIMITS
    assert limits_of(Endpoint("native", "native")) is None


def test_no_text_and_an_empty_text_are_refused_and_it_is_said_which() -> None:
    with pytest.raises(InvalidRequest, match="no text") as caught:
        check_texts([])
    assert caught.value.problems[0].pointer == "/input"
    with pytest.raises(InvalidRequest, match="index 2 is empty") as caught:
        check_texts(["a", " ", "", ""])
    assert caught.value.problems[0].pointer == "/input/2"


def test_vectors_are_put_in_the_order_of_the_texts() -> None:
    assert vectors_of(SOMEWHERE, [*reversed(data([1.0], [2.0], [3]))], 3) == [[1.0], [2.0], [3]]
    assert vectors_of(SOMEWHERE, [{"embedding": [1.0]}, {"embedding": [2.0]}], 2) == [[1.0], [2.0]], "without an index as they come"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "one vector for each text"),
        ("vectors", "one vector for each text"),
        ([[1.0], [2.0]], "one vector for each text"),
        (data([1.0]), "one vector for each text"),
        (data([1.0], [2.0], [3.0]), "one vector for each text"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}], "one vector for each text"),
        ([{"index": 1, "embedding": [1.0]}, {"index": 2, "embedding": [2.0]}], "one vector for each text"),
        (data([1.0], [2.0, 3.0]), "different lengths"),
        (data([], []), "different lengths"),
        (data([1.0], "AACAPw=="), "finite numbers"),
        (data([1.0], None), "finite numbers"),
        (data([1.0], ["1"]), "finite numbers"),
        (data([1.0], [True]), "finite numbers"),
        (data([1.0], [float("nan")]), "finite numbers"),
        (data([1.0], [float("inf")]), "finite numbers"),
        (data([1.0], [10**400]), "finite numbers"),
    ],
)
def test_what_is_not_one_finite_vector_for_each_text_is_a_bad_answer(answer: Any, words: str) -> None:
    with capture_logs(), pytest.raises(UpstreamError, match=words) as caught:
        vectors_of(SOMEWHERE, answer, 2)
    assert caught.value.code == "LLM_ERROR"


def test_numbers_that_json_does_not_have_are_read_and_refused() -> None:
    answer = parse_answer(SOMEWHERE, "m", b'{"data": [{"index": 0, "embedding": [NaN, 1.0]}]}')
    with capture_logs(), pytest.raises(UpstreamError, match="finite"):
        vectors_of(SOMEWHERE, answer["data"], 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"),
        (400, "Invalid 'input[0]': maximum input length is 8192 tokens."),
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 1500"),
        (400, "the input length exceeds the context length"),
        (400, "request (700 tokens) exceeds the available context size (512 tokens)"),
        (422, "Too many tokens in batch. Max is 16384 got 17555"),
    ],
)
def test_a_refusal_of_a_text_that_is_too_long_is_about_the_text(status: int, reason: str) -> None:
    with capture_logs():
        error = refused(SOMEWHERE, "m", status, reason=reason, what=A_TEXT)
    assert (error.status, error.code) == (400, "VALIDATION_ERROR")
    assert error.message == "A text is longer than the model 'm' can take. Shorten it or choose another model."


def test_named_models_are_told_apart_by_what_they_do() -> None:
    def named(kind: str, *models: str) -> ConfiguredProvider:
        return ConfiguredProvider(Endpoint("mine", kind, "http://127.0.0.1:9/v1"), "database", models)

    both = named("openai", "nomic-embed-text", "llama3", "my-guard")
    assert both.named("chat") == ("llama3", "my-guard"), "whoever names a model of no known kind wants to chat with it"
    assert both.named("embedding") == ("nomic-embed-text",)
    only = named("voyage", "voyage-3-large")
    assert (only.may_serve("chat"), only.may_serve("embedding")) == (False, True)
    unnamed = named("openai")
    assert (unnamed.may_serve("chat"), unnamed.may_serve("embedding")) == (True, True)
