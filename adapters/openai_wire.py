"""OpenAI's protocol as data: what is posted, what an answer, a chunk and a refusal say. No I/O."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

import orjson

from adapters.chat import ChatRequest, Endpoint, Usage, text_of
from adapters.embedding import EmbeddingRequest
from adapters.model_catalog import ModelIds, by_role
from adapters.model_failures import CONVERSATION, bad_answer, refused
from adapters.speech import SpeechRequest
from adapters.sse import ServerSentEvent
from adapters.tool_calls import Extras, describe_tools, messages_of, tool_option_to_leave_out
from homeport.errors import AppError


def build_payload(request: ChatRequest, without: frozenset[str], *, is_stream: bool) -> dict[str, Any]:
    """The body to post, leaving out the options named in ``without``."""
    payload: dict[str, Any] = {"model": request.model, "messages": messages_of(request, without), **describe_tools(request, without)}
    if request.temperature is not None and "temperature" not in without:
        payload["temperature"] = request.temperature
    if request.max_tokens is not None:
        payload["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
    if request.response_format is not None:
        payload["response_format"] = request.response_format
    if is_stream:
        payload["stream"] = True
        if "stream_options" not in without:
            payload["stream_options"] = {"include_usage": True}
    return payload


def build_embedding_payload(request: EmbeddingRequest) -> dict[str, Any]:
    """The body to post for vectors."""
    payload: dict[str, Any] = {"model": request.model, "input": request.texts}
    if request.dimensions is not None:
        payload["dimensions"] = request.dimensions
    return payload


def build_speech_payload(request: SpeechRequest) -> dict[str, Any]:
    """The body to post for speech, as WAV: its header says what it is, and no other format is known to all."""
    payload: dict[str, Any] = {"model": request.model, "input": request.text, "voice": request.voice, "response_format": "wav"}
    if request.speed is not None:
        payload["speed"] = request.speed
    return payload


def options_refused_by(endpoint: Endpoint) -> frozenset[str]:
    """The options to leave out from the start."""
    # OpenAI itself takes max_completion_tokens for every model, and its newer models take nothing else.
    is_openai = urlsplit(endpoint.base_url or "").hostname == "api.openai.com"
    return frozenset({"max_tokens"}) if is_openai else frozenset()


def option_to_leave_out(request: ChatRequest, status: int, refusal: bytes) -> str | None:
    """The option that an upstream refuses as such, so that the request is worth repeating without it.

    The official clients always send a temperature and max_tokens. Reasoning models refuse both, servers that check strictly refuse
    ``stream_options``, others refuse tools; which ones do changes too often for a list of names, so it is learned from the refusal.
    """
    if option := tool_option_to_leave_out(request, status, refusal.decode("utf-8", "replace")):
        return option
    if status not in {400, 422}:
        return None
    if b"max_completion_tokens" in refusal:
        return "max_tokens"
    if b"stream_options" in refusal:
        return "stream_options"
    error = _error_of(refusal)
    return "temperature" if error.get("param") == "temperature" and str(error.get("code")).startswith("unsupported") else None


def refusal_error(endpoint: Endpoint, model: str, status: int, body: bytes, retry_after: str | None, what: str = CONVERSATION) -> AppError:
    """The error for an answer whose status is not 200. ``what`` may have been too long."""
    error = _error_of(body)
    code = str(error["code"])[:64] if error.get("code") else None
    return refused(endpoint, model, status, code=code, reason=error.get("message"), retry_after=retry_after, what=what)


def parse_answer(endpoint: Endpoint, model: str, body: bytes, *, is_error: bool = False) -> dict[str, Any]:
    """A JSON object of an answer. Raises when it is not one, or when it tells of an error although the status was 200."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(body)  # takes half of a surrogate pair, which some servers send when a token ends inside an emoji
        except ValueError as error:
            raise bad_answer(endpoint, "answered with something that is not JSON", error) from error
    if not isinstance(value, dict):
        raise bad_answer(endpoint, "answered with something that is not an answer", type(value).__name__)
    if is_error or value.get("error"):
        told = _error_of(body)
        if isinstance(status := told.get("code"), int) and 400 <= status < 600:
            raise refused(endpoint, model, status, reason=told.get("message"))
        raise bad_answer(endpoint, "reported an error instead of an answer", told.get("message"))
    return value


def message_of(endpoint: Endpoint, answer: Mapping[str, Any]) -> tuple[str, Extras]:
    """The text of a whole answer, and what is beside it; a refusal by the model counts as text."""
    choices = answer.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise bad_answer(endpoint, "gave an answer without content")
    extras = Extras(endpoint)
    extras.read(message, is_whole=True)
    return text_of(message.get("content") or message.get("refusal")), extras


def vectors_of(endpoint: Endpoint, data: Any, count: int) -> list[list[float]]:
    """The vectors of an answer's ``data`` in the order of the texts. Raises unless there are ``count``, of one length, and finite."""
    items = data if isinstance(data, Sequence) and all(isinstance(item, Mapping) for item in data) else ()
    numbered = {item["index"] if isinstance(item.get("index"), int) else place: item.get("embedding") for place, item in enumerate(items)}
    if len(items) != count or numbered.keys() != set(range(count)):
        raise bad_answer(endpoint, "did not give one vector for each text", len(items))
    vectors = [numbered[place] for place in range(count)]
    if not all(isinstance(vector, list) and _is_finite(vector) for vector in vectors):
        raise bad_answer(endpoint, "gave a vector that is not made of finite numbers")
    if len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
        raise bad_answer(endpoint, "gave vectors of different lengths")
    return vectors


def _is_finite(vector: list[Any]) -> bool:
    try:
        return set(map(type, vector)) <= {float, int} and all(map(isfinite, vector))
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def model_ids_of(endpoint: Endpoint, body: bytes) -> ModelIds:
    """The ids of a list of models, by what they do."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_answer(endpoint, "answered with something that is not JSON", error) from error
    items = value.get("data") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise bad_answer(endpoint, "gave no list of models")
    return by_role(item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str))


class StreamedAnswer:
    """What the chunks of a stream have told so far."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._has_begun = self._has_finished = False
        self.usage = Usage()
        self.extras = Extras(endpoint)
        self.is_done = False

    def read(self, event: ServerSentEvent) -> str:
        """Take in one event; returns its text, often empty."""
        if event.data == b"[DONE]":
            self.is_done = True
            return ""
        chunk = parse_answer(self._endpoint, self._model, event.data, is_error=event.name == "error")
        if usage := chunk.get("usage"):
            self.usage = Usage.of(usage)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return ""
        self._has_begun = True
        if choices[0].get("finish_reason"):
            self._has_finished = True
        delta = choices[0].get("delta")
        if not isinstance(delta, dict):
            return ""
        text = text_of(delta.get("content"))
        if not text or len(delta) > 1:  # most pieces are a text and nothing else
            self.extras.read(delta)
        return text

    def check_complete(self) -> None:
        """Raises when the stream ended before the answer did."""
        if not self._has_begun:
            raise bad_answer(self._endpoint, "ended its answer before it began")
        if not (self.is_done or self._has_finished):
            raise bad_answer(self._endpoint, "broke off in the middle of its answer")


def _error_of(body: bytes) -> Mapping[str, Any]:
    """The error object of a refusal; of one that cannot be read, its text as the message."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body.decode("utf-8", "replace")}
    error = value.get("error", value) if isinstance(value, dict) else value
    return error if isinstance(error, dict) else {"message": str(error)}
