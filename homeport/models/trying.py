"""Trying a provider: whether it works, in a sentence."""

from collections.abc import Awaitable, Callable

from adapters.chat import ChatRequest, ChatTransport
from adapters.embedding import EmbeddingResult
from adapters.speech import SpeechResult
from homeport.errors import AppError
from homeport.models.providers import ProviderTest
from homeport.models.resolving import DIRECT, Resolver

TEST_TOKENS = 16


class Trial:
    """Tries providers with as little as proves something: their list of models, else a few tokens of chat, else a word embedded or spoken.

    ``embed`` and ``speak`` are those of ``Models``.
    """

    def __init__(
        self,
        resolver: Resolver,
        direct: ChatTransport,
        other: ChatTransport,
        embed: Callable[..., Awaitable[EmbeddingResult]],
        speak: Callable[..., Awaitable[SpeechResult]],
    ) -> None:
        self._resolver = resolver
        self._direct = direct
        self._other = other
        self._embed = embed
        self._speak = speak

    async def run(self, name: str) -> ProviderTest:
        """Try the provider of this name."""
        try:
            return ProviderTest(True, f"'{name}' works: {await self._try(name)}")
        except AppError as error:
            return ProviderTest(False, f"'{name}' does not work: {error.message}")

    async def _try(self, name: str) -> str:
        found = await self._resolver.find("embedding", name)
        if found is not None and found.problem is None:
            if not found.may_serve("chat"):
                return await (self._try_embedding(name) if found.named("embedding") else self._try_speech(name))
            if found.endpoint.kind == DIRECT:
                models = await self._direct.list_models(found.endpoint)
                if not models.chat and not found.models and (models.embedding or models.speech):
                    return await (self._try_embedding(name) if models.embedding else self._try_speech(name))
                _, model = await self._resolver.resolve("chat", name, None)
                return f"it has {len(models.chat)} models that can chat. The default is {model}."
        endpoint, model = await self._resolver.resolve("chat", name, None)
        await self._other.chat(endpoint, ChatRequest(model, [{"role": "user", "content": "Say yes."}], max_tokens=TEST_TOKENS))
        return f"{model} answered."

    async def _try_embedding(self, name: str) -> str:
        result = await self._embed(["word"], provider=name)
        return f"{result.model} makes vectors of {len(result.vectors[0])} numbers."

    async def _try_speech(self, name: str) -> str:
        result = await self._speak("word", provider=name)
        return f"{result.model} spoke."
