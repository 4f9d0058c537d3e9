"""Chat, embeddings and speech with whatever speaks OpenAI's protocol (OpenAI, Groq, Ollama, vLLM, LM Studio, …), directly over aiohttp.

One connection pool per process. Redirects are not followed, because they would carry the key elsewhere; answers are bounded in
size and time; whatever goes wrong leaves as one of the errors of ``adapters.model_failures``.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import lru_cache
from ipaddress import ip_address
from time import perf_counter
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from adapters.chat import HEARTBEAT_S, ChatRequest, ChatResult, ChatStream, Delta, Endpoint, Finish, Silence, StreamEvent, Usage
from adapters.embedding import A_TEXT, EmbeddingRequest, EmbeddingResult
from adapters.model_catalog import ModelIds, load_catalog
from adapters.model_failures import CONVERSATION, bad_answer, too_slow, unreachable
from adapters.openai_wire import (
    StreamedAnswer,
    build_embedding_payload,
    build_payload,
    build_speech_payload,
    message_of,
    model_ids_of,
    option_to_leave_out,
    options_refused_by,
    parse_answer,
    refusal_error,
    vectors_of,
)
from adapters.speech import THE_TEXT, SpeechRequest, SpeechResult, audio_of
from adapters.sse import EventParser, EventTooLarge, ServerSentEvent

CONNECT_TIMEOUT_S = 5.0
LIST_TIMEOUT_S = 10.0
LINGER_S = 0.05
KEEPALIVE_S = 30.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024
MAX_LEARNED = 256

# What reading a body raises when the connection is lost; RuntimeError when that was noticed between two reads.
BROKEN = (aiohttp.ClientError, ConnectionError, RuntimeError)


class OpenAIProtocol:
    """The direct transport. ``chat_timeout_s`` bounds a whole answer, ``stream_idle_s`` the silence within a streamed one; after
    ``heartbeat_s`` of silence a stream says ``Silence``."""

    def __init__(self, chat_timeout_s: float, stream_idle_s: float, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._chat_timeout_s = chat_timeout_s
        self._stream_idle_s = stream_idle_s
        self._heartbeat_s = heartbeat_s
        self._session: aiohttp.ClientSession | None = None
        self._refused_options: dict[tuple[str | None, str], frozenset[str]] = {}

    async def chat(self, endpoint: Endpoint, request: ChatRequest) -> ChatResult:
        """Ask and wait for the whole answer."""
        started = perf_counter()
        timeout_s = request.timeout_s or self._chat_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._ask(endpoint, request, is_stream=False)
                body = await _read(endpoint, response)
        except TimeoutError as error:
            raise too_slow(endpoint, timeout_s) from error
        answer = parse_answer(endpoint, request.model, body)
        content, extras = message_of(endpoint, answer)
        usage, duration_s = Usage.of(answer.get("usage")), perf_counter() - started
        return ChatResult(content, endpoint.provider, request.model, usage, duration_s, extras.calls(), extras.reasoning)

    async def open_stream(self, endpoint: Endpoint, request: ChatRequest) -> ChatStream:
        """Ask; return when the answer begins."""
        started = perf_counter()
        idle_s = request.timeout_s or self._stream_idle_s
        try:
            async with asyncio.timeout(idle_s):
                response = await self._ask(endpoint, request, is_stream=True)
        except TimeoutError as error:
            raise too_slow(endpoint, idle_s) from error
        if response.content_type in {"text/html", "application/json"}:
            response.close()
            raise bad_answer(endpoint, "did not answer with a stream", response.content_type)
        return await ChatStream.open(self._events(endpoint, request, response, started))

    async def embed(self, endpoint: Endpoint, request: EmbeddingRequest) -> EmbeddingResult:
        """Ask in one request and wait for all vectors."""
        started = perf_counter()
        payload = orjson.dumps(build_embedding_payload(request))
        timeout_s = request.timeout_s or self._chat_timeout_s
        body = await self._fetch(endpoint, "POST", "/embeddings", timeout_s, payload, model=request.model, what=A_TEXT)
        answer = parse_answer(endpoint, request.model, body)
        vectors = vectors_of(endpoint, answer.get("data"), len(request.texts))
        return EmbeddingResult(vectors, endpoint.provider, request.model, Usage.of(answer.get("usage")), perf_counter() - started)

    async def speak(self, endpoint: Endpoint, request: SpeechRequest) -> SpeechResult:
        """Ask, and wait for the whole of it."""
        started = perf_counter()
        payload = orjson.dumps(build_speech_payload(request))
        timeout_s = request.timeout_s or self._chat_timeout_s
        body = await self._fetch(endpoint, "POST", "/audio/speech", timeout_s, payload, model=request.model, what=THE_TEXT)
        return SpeechResult(audio_of(endpoint, body), endpoint.provider, request.model, Usage(), perf_counter() - started)

    async def list_models(self, endpoint: Endpoint) -> ModelIds:
        """The ids of the provider's models, in its order."""
        await asyncio.to_thread(load_catalog)
        return model_ids_of(endpoint, await self._fetch(endpoint, "GET", "/models", LIST_TIMEOUT_S))

    async def close(self) -> None:
        """Close connections. The transport can be used again afterwards."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, endpoint: Endpoint, request: ChatRequest, *, is_stream: bool) -> aiohttp.ClientResponse:
        """Post the request, without the options that the model is known to refuse, and return the head of its good answer."""
        key = (endpoint.base_url, request.model)
        without = self._refused_options.get(key) or options_refused_by(endpoint)
        while True:
            body = orjson.dumps(build_payload(request, without, is_stream=is_stream))
            response = await self._send(endpoint, "POST", "/chat/completions", body)
            if response.status == 200:
                return response
            refusal = await _read(endpoint, response)
            option = option_to_leave_out(request, response.status, refusal)
            if option is None or option in without:
                raise refusal_error(endpoint, request.model, response.status, refusal, response.headers.get("Retry-After"))
            without |= {option}
            if len(self._refused_options) < MAX_LEARNED:
                self._refused_options[key] = without

    async def _fetch(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        timeout_s: float,
        payload: bytes | None = None,
        *,
        model: str = "",
        what: str = CONVERSATION,
    ) -> bytes:
        """Send one request and return the body of its good answer."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(endpoint, method, path, payload)
                body = await _read(endpoint, response)
        except TimeoutError as error:
            raise too_slow(endpoint, timeout_s) from error
        if response.status != 200:
            raise refusal_error(endpoint, model, response.status, body, response.headers.get("Retry-After"), what)
        return body

    async def _send(self, endpoint: Endpoint, method: str, path: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        """Send one request and return the head of the answer, whatever its status."""
        url = f"{endpoint.base_url}{path}"
        headers = {"Accept-Encoding": "identity"}  # a compressed stream would be held back until a block is full
        if body is not None:
            headers["Content-Type"] = "application/json"
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        while True:
            used = SimpleNamespace(is_reused=False)
            try:
                return await self._open_session().request(
                    method, url, data=body, headers=headers, allow_redirects=False, proxy=_proxy_for(url), trace_request_ctx=used
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise unreachable(endpoint, error) from error
            except aiohttp.ClientConnectionError as error:
                # A kept-alive connection may be closed by the server just as it is used again; nothing was read then, so ask again.
                if not used.is_reused:
                    raise bad_answer(endpoint, "closed the connection without an answer", error) from error
            except (aiohttp.ClientError, ValueError) as error:
                raise bad_answer(endpoint, "answered with something that is not HTTP", error) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "homeport"},
                trace_configs=[tracing],
            )
        return self._session

    async def _events(
        self, endpoint: Endpoint, request: ChatRequest, response: aiohttp.ClientResponse, started: float
    ) -> AsyncGenerator[StreamEvent]:
        """The answer, piece by piece, until it is complete. Closing the generator closes the connection."""
        reader = _EventReader(endpoint, response, request.timeout_s or self._stream_idle_s, self._heartbeat_s)
        answer = StreamedAnswer(endpoint, request.model)
        try:
            while not (answer.is_done or reader.is_at_end):
                if (events := await reader.read()) is None:
                    yield Silence()
                    continue
                for event in events:
                    if text := answer.read(event):
                        yield Delta(text)
            answer.check_complete()
            calls, reasoning = answer.extras.calls(), answer.extras.reasoning
            yield Finish(endpoint.provider, request.model, answer.usage, perf_counter() - started, calls, reasoning)
            await _drain(response)
        finally:
            response.close()


class _EventReader:
    """Reads the events of a stream as they come and notices silence."""

    def __init__(self, endpoint: Endpoint, response: aiohttp.ClientResponse, idle_s: float, heartbeat_s: float) -> None:
        self._endpoint = endpoint
        self._content = response.content
        self._idle_s = idle_s
        self._heartbeat_s = heartbeat_s
        self._parser = EventParser()
        self._silent_s = 0.0  # since the last byte, counting only the time spent waiting here
        self._quiet_s = 0.0  # since the last event or None; an upstream's own keep-alive comments end silence, not quiet
        self.is_at_end = False

    async def read(self) -> list[ServerSentEvent] | None:
        """The events that have come, maybe none yet; None when there was no event for the time of a heartbeat."""
        wait_s = min(self._heartbeat_s - self._quiet_s, self._idle_s - self._silent_s)
        started = perf_counter()
        try:
            async with asyncio.timeout(wait_s):
                piece = await self._content.readany()
            events = list(self._parser.feed(piece) if piece else self._parser.finish())
        except TimeoutError as error:
            self._silent_s += wait_s
            self._quiet_s = 0
            if self._silent_s >= self._idle_s:
                raise too_slow(self._endpoint, self._idle_s) from error
            return None
        except EventTooLarge as error:
            raise bad_answer(self._endpoint, "sent a piece that is too large") from error
        except BROKEN as error:
            raise bad_answer(self._endpoint, "broke off in the middle of its answer", error) from error
        self.is_at_end = not piece
        self._silent_s = 0
        self._quiet_s = 0 if events else self._quiet_s + perf_counter() - started
        if self._quiet_s < self._heartbeat_s:
            return events
        self._quiet_s = 0
        return None


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.is_reused = True


async def _read(endpoint: Endpoint, response: aiohttp.ClientResponse) -> bytes:
    """The whole body, of a refusal its beginning; the connection is given back, or closed when something is left on it."""
    body = bytearray()
    limit_bytes = MAX_ANSWER_BYTES if response.status == 200 else MAX_REFUSAL_BYTES
    try:
        while len(body) <= limit_bytes and (piece := await response.content.readany()):
            body += piece
    except BROKEN as error:
        raise bad_answer(endpoint, "broke off in the middle of its answer", error) from error
    finally:
        response.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise bad_answer(endpoint, "gave an answer that is too large")
    return bytes(body)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read to the end of a finished stream, so that its connection can be used again; not worth waiting for."""
    try:
        async with asyncio.timeout(LINGER_S):
            while await response.content.readany():
                pass
    except (TimeoutError, *BROKEN):
        return  # the answer is complete; only the connection is lost


@lru_cache(maxsize=64)
def _proxy_for(url: str) -> str | None:
    """The proxy that the environment asks for, except for loopback, where local models run."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return None if _is_loopback(host) or proxy_bypass(host) else getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
