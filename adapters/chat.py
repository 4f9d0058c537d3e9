"""What a chat with a model is, whoever answers it: with tools or without, whole or streamed.

Two transports share these types, ``adapters.openai_protocol`` (direct) and ``adapters.litellm`` (everybody else), and the errors of
``adapters.model_failures``.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

from adapters.model_catalog import ModelIds
from homeport.errors import AppError, InvalidRequest

HEARTBEAT_S = 15.0

ToolChoice = Literal["auto", "none", "required"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is reached. ``kind`` is ``openai`` for OpenAI's protocol, else LiteLLM's name of the provider."""

    provider: str
    kind: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)


class ContextTooLong(InvalidRequest):
    """The conversation is longer than the model can take."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that a model may call. ``name`` fits ``^[a-zA-Z0-9_-]{1,64}$``; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool called. ``arguments`` is JSON as the model wrote it, so it may be broken, and ``name`` may be one that
    was not offered."""

    id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued. ``messages`` are in OpenAI's shape; None means that the model decides, and for ``timeout_s`` the
    transport: it bounds a whole answer, or the silence before and within a streamed one. A model that takes no ``tools`` answers without
    them."""

    model: str
    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    temperature: float | None = None
    max_tokens: int | None = None
    response_format: Mapping[str, Any] | None = None
    timeout_s: float | None = None
    tools: Sequence[ToolSpec] = field(default=(), repr=False)
    tool_choice: ToolChoice | None = None

    def within(self, timeout_s: float | None) -> Self:
        """The same, within this time."""
        return self if timeout_s == self.timeout_s else replace(self, timeout_s=timeout_s)


def text_of(content: Any) -> str:
    """The text of ``content``, which is a text, a list of blocks, or nothing. Half surrogates become U+FFFD: they cannot be sent on."""
    if isinstance(content, list):
        content = "".join(str(block.get("text") or "") for block in content if isinstance(block, dict) and block.get("type") == "text")
    if not isinstance(content, str):
        return ""
    return content if content.isascii() else content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counted them; None where it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    @classmethod
    def of(cls, value: Any) -> Self:
        """Read an upstream's usage, a mapping or an object; anything that is not a count is unknown."""

        def count(name: str) -> int | None:
            number = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
            return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None

        return cls(count("prompt_tokens"), count("completion_tokens"), count("total_tokens"))


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A whole answer and what it took. ``content`` may be empty beside ``tool_calls``; ``reasoning`` is what the model told of how it got
    there."""

    content: str = field(repr=False)
    provider: str
    model: str
    usage: Usage
    duration_s: float
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer; never empty."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing came for HEARTBEAT_S, but the upstream is still there: keep the client's connection warm."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete; always the last event. Tool calls and reasoning are as in ``ChatResult``."""

    provider: str
    model: str
    usage: Usage
    duration_s: float
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = field(default="", repr=False)


StreamEvent = Delta | Silence | Finish
# What it took, as far as is known, and the failure that ended it.
WhenOver = Callable[[Usage, AppError | None], None]


class ChatStream:
    """An answer that is being given: iterate, and ``aclose()`` to cancel the upstream call at once.

    It exists only once the upstream has begun (or was silent for HEARTBEAT_S), so whatever fails before that is raised by ``open``.
    """

    def __init__(self, first: StreamEvent, events: AsyncGenerator[StreamEvent]) -> None:
        self._first: StreamEvent | None = first
        self._events = events
        self._tell: WhenOver | None = None

    @classmethod
    async def open(cls, events: AsyncGenerator[StreamEvent]) -> Self:
        """Wait for the first event. Raises the errors of ``adapters.model_failures``."""
        return cls(await anext(events), events)

    def when_over(self, tell: WhenOver) -> None:
        """Have ``tell`` called once: when the answer is complete or fails, or when it is closed before that."""
        self._tell = tell

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if (event := self._first) is not None:
            self._first = None
        else:
            try:
                event = await anext(self._events)
            except AppError as error:
                error.code = "LLM_STREAM_ERROR"
                self._over(Usage(), error)
                raise
        if type(event) is Finish:
            self._over(event.usage, None)
        return event

    async def aclose(self) -> None:
        """Give up: the connection to the upstream is closed before this returns."""
        try:
            await self._events.aclose()
        finally:
            self._over(Usage(), None)

    def _over(self, usage: Usage, error: AppError | None) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(usage, error)


class ChatTransport(Protocol):
    """A way to reach models. All methods raise the errors of ``adapters.model_failures`` and nothing else."""

    async def chat(self, endpoint: Endpoint, request: ChatRequest) -> ChatResult:
        """Ask and wait for the whole answer."""

    async def open_stream(self, endpoint: Endpoint, request: ChatRequest) -> ChatStream:
        """Ask; return when the answer begins."""

    async def list_models(self, endpoint: Endpoint) -> ModelIds:
        """The ids of the provider's models, in its order."""

    async def close(self) -> None:
        """Close connections. The transport can be used again afterwards."""
