"""Chat, embeddings and speech with every provider that does not speak OpenAI's protocol, through LiteLLM.

LiteLLM takes seconds and some 190 MB to import, so it is imported at first use or by ``warm``, in a thread. What it raises is told as the
errors of ``adapters.model_failures``.
"""

import asyncio
import binascii
import importlib
import os
import warnings
from base64 import b64decode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from logging import CRITICAL, getLogger
from threading import Lock
from time import perf_counter
from typing import Any

import structlog

from adapters.audio.encoded import EncodedAudio
from adapters.audio.pcm import Pcm
from adapters.chat import HEARTBEAT_S, ChatRequest, ChatResult, ChatStream, Delta, Endpoint, Finish, Silence, StreamEvent, Usage, text_of
from adapters.embedding import A_TEXT, EmbeddingRequest, EmbeddingResult
from adapters.litellm_chunks import SILENCE, ChunkReader
from adapters.litellm_failures import error_of, status_of
from adapters.model_catalog import ModelIds, known_models
from adapters.model_failures import CONVERSATION, bad_answer, too_slow
from adapters.openai_wire import vectors_of
from adapters.speech import NOT_AUDIO, THE_TEXT, SpeechRequest, SpeechResult, audio_of, samples_of
from adapters.tool_calls import Extras, describe_tools, messages_of, tool_option_to_leave_out
from homeport.errors import AppError, Unavailable

log = structlog.get_logger(__name__)

# Before the import: no fetching of price lists, no reading of a .env file in the working directory, no debug output.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "CRITICAL"}
# What is asked for where WAV cannot be: samples without a header, of a rate that every account may have.
SAMPLE_FORMATS = {"elevenlabs": ("pcm_24000", 24_000)}
GEMINI_RATE = 24_000
MAX_LEARNED = 256
GRACE_S = 5.0  # LiteLLM's own time limit is this much later than ours, so that ours decides

_import_lock = Lock()


def _import_litellm() -> Any:
    """The package, silent and keeping to itself. Blocks for seconds the first time."""
    with _import_lock:
        os.environ.update(ENVIRONMENT)
        warnings.filterwarnings("ignore", "Item .* on TypedDict class", UserWarning)  # pydantic, about types of its dependencies
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        litellm.telemetry = False
        litellm.drop_params = True  # leave out what a provider is known not to take, instead of failing
        litellm.DEFAULT_MAX_RETRIES = 0  # what it takes where it takes 0 for unset
        litellm.user_url_validation = True  # it may fetch an app's image URLs itself: public addresses only
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            getLogger(name).setLevel(CRITICAL)  # its log lines carry bodies
        return litellm


class LiteLLM:
    """The transport for all other providers. The times are those of ``OpenAIProtocol``."""

    def __init__(self, chat_timeout_s: float, stream_idle_s: float, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._chat_timeout_s = chat_timeout_s
        self._stream_idle_s = stream_idle_s
        self._heartbeat_s = heartbeat_s
        self._package: Any = None
        self._refused_options: dict[tuple[str, str | None, str], frozenset[str]] = {}

    async def warm(self) -> None:
        """Import the package, so that the first chat does not wait for it. Raises Unavailable when that is not possible."""
        if self._package is None:
            try:
                self._package = await asyncio.to_thread(_import_litellm)
            except ImportError as error:
                log.warning("litellm cannot be imported", reason=str(error))
                message = "The package 'litellm', which this model provider needs, cannot be imported. Install Homeport again."
                raise Unavailable(message, code="PROVIDER_UNAVAILABLE") from error

    async def chat(self, endpoint: Endpoint, request: ChatRequest) -> ChatResult:
        """Ask and wait for the whole answer."""
        await self.warm()
        started = perf_counter()
        answer = await self._complete(endpoint, request, request.timeout_s or self._chat_timeout_s)
        if answer is None or not answer.choices:  # LiteLLM returns None where one of its own retries went wrong
            raise bad_answer(endpoint, "gave an answer without content")
        message = answer.choices[0].message
        extras = Extras(endpoint)
        extras.read(_extras_of(message), is_whole=True)
        usage, duration_s = Usage.of(answer.get("usage")), perf_counter() - started
        content = text_of(message.content)
        return ChatResult(content, endpoint.provider, request.model, usage, duration_s, extras.calls(), extras.reasoning)

    async def open_stream(self, endpoint: Endpoint, request: ChatRequest) -> ChatStream:
        """Ask; return when the answer begins."""
        await self.warm()
        started = perf_counter()
        options = {"stream": True, "stream_options": {"include_usage": True}}
        answer = await self._complete(endpoint, request, request.timeout_s or self._stream_idle_s, **options)
        if answer is None:
            raise bad_answer(endpoint, "did not answer with a stream")
        return await ChatStream.open(self._events(endpoint, request, answer, started))

    async def embed(self, endpoint: Endpoint, request: EmbeddingRequest) -> EmbeddingResult:
        """Ask in one request and wait for all vectors."""
        await self.warm()
        started = perf_counter()
        options = {"input": list(request.texts), "dimensions": request.dimensions}
        timeout_s = request.timeout_s or self._chat_timeout_s
        answer = await self._call(self._package.aembedding, endpoint, request.model, timeout_s, A_TEXT, **options)
        vectors = vectors_of(endpoint, answer.data, len(request.texts))
        usage = Usage.of(answer.usage)
        if not usage.total_tokens:  # LiteLLM counts nothing where the provider did not count
            usage = Usage()
        return EmbeddingResult(vectors, endpoint.provider, request.model, usage, perf_counter() - started)

    async def speak(self, endpoint: Endpoint, request: SpeechRequest) -> SpeechResult:
        """Ask, and wait for the whole of it."""
        await self.warm()
        started = perf_counter()
        speak = self._speak_by_chat if "gemini" in f"{endpoint.kind}/{request.model}" else self._speak
        audio, usage = await speak(endpoint, request, request.timeout_s or self._chat_timeout_s)
        return SpeechResult(audio, endpoint.provider, request.model, usage, perf_counter() - started)

    async def _speak(self, endpoint: Endpoint, request: SpeechRequest, timeout_s: float) -> tuple[Pcm | EncodedAudio, Usage]:
        sample_format, rate = SAMPLE_FORMATS.get(endpoint.kind, ("wav", 0))
        options = {"input": request.text, "voice": request.voice, "response_format": sample_format, "speed": request.speed}
        answer = await self._call(self._package.aspeech, endpoint, request.model, timeout_s, THE_TEXT, **options)
        media_type = answer.response.headers.get("content-type", "")
        if media_type.startswith(("text/", "application/json")):  # anything can be read as samples
            raise bad_answer(endpoint, NOT_AUDIO, media_type)
        return samples_of(endpoint, answer.content, rate) if rate else audio_of(endpoint, answer.content), Usage()

    async def _speak_by_chat(self, endpoint: Endpoint, request: SpeechRequest, timeout_s: float) -> tuple[Pcm | EncodedAudio, Usage]:
        """Gemini speaks in a chat. LiteLLM's own way there asks it twice, blocks a thread, and knows no address and no time limit."""
        options = {
            "messages": [{"role": "user", "content": request.text}],
            "modalities": ["audio"],
            "audio": {"voice": request.voice, "format": "pcm16"},
        }
        answer = await self._call(self._package.acompletion, endpoint, request.model, timeout_s, THE_TEXT, **options)
        audio = getattr(answer.choices[0].message, "audio", None) if answer is not None and answer.choices else None
        try:
            samples = b64decode(audio.data) if audio is not None else b""
        except binascii.Error as error:
            raise bad_answer(endpoint, NOT_AUDIO, error) from error
        return samples_of(endpoint, samples, GEMINI_RATE), Usage.of(answer.get("usage"))

    async def list_models(self, endpoint: Endpoint) -> ModelIds:
        """The models that LiteLLM knows of this provider; the provider itself is not asked."""
        return await asyncio.to_thread(known_models, endpoint.kind)

    async def knows_provider(self, kind: str) -> bool:
        """Whether LiteLLM has a provider of this name. Imports the package when the catalogue does not tell."""
        if any(await asyncio.to_thread(known_models, kind)):
            return True
        await self.warm()
        return kind in {str(getattr(each, "value", each)) for each in self._package.provider_list}

    async def close(self) -> None:
        """Close connections. The transport can be used again afterwards."""
        if self._package is not None:
            await self._package.close_litellm_async_clients()
            self._package.in_memory_llm_clients_cache.flush_cache()

    async def _complete(self, endpoint: Endpoint, request: ChatRequest, timeout_s: float, **options: Any) -> Any:
        """Begin to answer a conversation, or answer it, without the options that the model is known to refuse."""
        key = (endpoint.kind, endpoint.base_url, request.model)
        without = self._refused_options.get(key, frozenset())
        options |= {
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "response_format": request.response_format,
        }
        while True:
            messages = [_with_file_urls_as_ids(message) for message in messages_of(request, without)]
            asked = {**options, "messages": messages, **describe_tools(request, without)}
            try:
                return await self._attempt(self._package.acompletion, endpoint, request.model, timeout_s, asked)
            except AppError:
                raise
            except Exception as error:  # LiteLLM raises whatever its provider modules raise; all of it is mapped
                option = tool_option_to_leave_out(request, status_of(error), str(error))
                if option is None or option in without:
                    raise error_of(endpoint, request.model, error, timeout_s, CONVERSATION) from error
            without |= {option}
            if len(self._refused_options) < MAX_LEARNED:
                self._refused_options[key] = without

    async def _call(
        self, function: Callable[..., Awaitable[Any]], endpoint: Endpoint, model: str, timeout_s: float, what: str, **options: Any
    ) -> Any:
        """Call LiteLLM; what it raises leaves as one of the errors of ``adapters.model_failures``."""
        try:
            return await self._attempt(function, endpoint, model, timeout_s, options)
        except AppError:
            raise
        except Exception as error:  # as above
            raise error_of(endpoint, model, error, timeout_s, what) from error

    async def _attempt(
        self, function: Callable[..., Awaitable[Any]], endpoint: Endpoint, model: str, timeout_s: float, options: Mapping[str, Any]
    ) -> Any:
        """Call LiteLLM in time. Raises what it raises."""
        call = function(
            model=f"{endpoint.kind}/{model}",
            api_base=endpoint.base_url,
            api_key=endpoint.api_key,
            timeout=timeout_s + GRACE_S,
            max_retries=0,
            **options,
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError as error:
            raise too_slow(endpoint, timeout_s) from error

    async def _events(self, endpoint: Endpoint, request: ChatRequest, answer: Any, started: float) -> AsyncGenerator[StreamEvent]:
        """The answer, piece by piece, until it is complete. Closing the generator closes the connection."""
        usage = Usage()
        has_text = False
        extras = Extras(endpoint)
        idle_s = request.timeout_s or self._stream_idle_s
        chunks = ChunkReader(answer, idle_s, self._heartbeat_s)
        try:
            while (chunk := await chunks.read()) is not None:
                if chunk is SILENCE:
                    yield Silence()
                    continue
                if found := chunk.get("usage"):
                    usage = Usage.of(found)
                delta = chunk.choices[0].delta if chunk.choices else None
                text = text_of(getattr(delta, "content", None))
                if delta is not None:
                    extras.read(_extras_of(delta))
                if text:
                    has_text = True
                    yield Delta(text)
            if not has_text and extras.is_empty:  # LiteLLM makes a finished, empty answer even of a web page
                raise bad_answer(endpoint, "ended its answer before it began")
            yield Finish(endpoint.provider, request.model, usage, perf_counter() - started, extras.calls(), extras.reasoning)
        except AppError:
            raise
        except TimeoutError as error:
            raise too_slow(endpoint, idle_s) from error
        except Exception as error:  # as above
            raise error_of(endpoint, request.model, error, idle_s) from error
        finally:
            await chunks.close()


def _extras_of(message: Any) -> dict[str, Any]:
    """Tool calls and reasoning of a message, or of a piece of one."""
    calls = getattr(message, "tool_calls", None)
    found = {"reasoning_content": getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)}
    return {**found, "tool_calls": [call.model_dump() for call in calls]} if calls else found


def _with_file_urls_as_ids(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """LiteLLM wants the address of a file where OpenAI has the id of an uploaded one."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_with_file_url_as_id(block) for block in content]}


def _with_file_url_as_id(block: Any) -> Any:
    file = block.get("file") if isinstance(block, Mapping) and block.get("type") == "file" else None
    if not isinstance(file, Mapping) or not str(file.get("file_data", "")).startswith(("http://", "https://")):
        return block
    rest = {name: value for name, value in file.items() if name != "file_data"}
    return {**block, "file": {**rest, "file_id": file["file_data"]}}
