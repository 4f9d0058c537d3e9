"""Asking models, through the transport that reaches them, and keeping the providers that were added."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from adapters.chat import ChatRequest, ChatResult, ChatStream, ChatTransport, Endpoint, ToolChoice, ToolSpec
from adapters.embedding import EmbeddingRequest, EmbeddingResult, EmbeddingTransport
from adapters.litellm import LiteLLM
from adapters.model_catalog import Role, context_window_of, load_catalog
from adapters.postgres import Database, Notifications
from adapters.speech import SpeechRequest, SpeechResult, SpeechTransport
from homeport.errors import InvalidRequest
from homeport.identity import Principal
from homeport.models.calling import Calling, first_that_answers
from homeport.models.embedding import check_texts, embed_in_batches
from homeport.models.environment import catalog_name, find_known_provider
from homeport.models.messages import normalize_messages
from homeport.models.model_lists import ModelLists
from homeport.models.providers import NATIVE, ConfiguredProvider, Provider, ProviderTest, check_base_url, check_key, check_provider_name
from homeport.models.registry import Registry
from homeport.models.resolving import DIRECT, Resolver, show_provider
from homeport.models.speech import Speaker, speech_endpoint, traits_of
from homeport.models.stored_providers import StoredProviders
from homeport.models.trying import Trial
from homeport.models.usage import ModelUsage
from homeport.models.usage_report import GroupBy, UsageReport, read_usage
from homeport.secrets import SecretBox
from homeport.settings import Settings

if TYPE_CHECKING:
    from adapters.minilm import MiniLM
    from adapters.openai_protocol import OpenAIProtocol

REPORT_SPAN = timedelta(days=7)


class Models:
    """The models that this server can reach. ``registry`` holds defaults, fallbacks and limits; ``usage`` counts, and its ``run()`` writes
    in the background."""

    def __init__(self, settings: Settings, database: Database, secret_box: SecretBox, environ: Mapping[str, str] = os.environ) -> None:
        self._direct: OpenAIProtocol | None = None
        self._litellm = LiteLLM(settings.chat_timeout_s, settings.stream_idle_s)
        self._timeout_s = settings.chat_timeout_s
        self._stream_idle_s = settings.stream_idle_s
        self._stored = StoredProviders(database, secret_box)
        self._lists = ModelLists(lambda endpoint: self._transport(endpoint).list_models(endpoint))
        self._resolver = Resolver(settings, self._stored, self._lists, environ)
        self._native: MiniLM | None = None
        self.registry = Registry(self._stored, self._resolver)
        self.usage = ModelUsage(database)
        self._database = database
        self._calling = Calling(lambda: self._stored.limits, self.usage)

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        caller: Principal | None = None,
        provider: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[ToolSpec] = (),
        tool_choice: ToolChoice | None = None,
    ) -> ChatResult:
        """Answer a conversation; the answer may be that tools be called. A model that takes no ``tools`` answers without them.

        Raises the errors of ``resolve`` and of ``adapters.model_failures``.
        """
        asked = normalize_messages(messages)

        async def ask(endpoint: Endpoint, name: str) -> ChatResult:
            request = ChatRequest(name, asked, temperature, max_tokens, response_format, tools=tools, tool_choice=tool_choice)
            chat = self._transport(endpoint).chat
            return await self._calling.call(
                "chat", caller, endpoint, name, lambda limit_s: chat(endpoint, request.within(limit_s)), timeout_s=self._timeout_s
            )

        return await first_that_answers(await self._resolver.choices("chat", provider, model), ask)

    async def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        caller: Principal | None = None,
        provider: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        tools: Sequence[ToolSpec] = (),
        tool_choice: ToolChoice | None = None,
    ) -> ChatStream:
        """Begin to answer a conversation. What fails before the first piece is raised here, as by ``chat``."""
        asked = normalize_messages(messages)

        async def ask(endpoint: Endpoint, name: str) -> ChatStream:
            request = ChatRequest(name, asked, temperature, max_tokens, response_format, tools=tools, tool_choice=tool_choice)
            begin = self._transport(endpoint).open_stream
            return await self._calling.call(
                "chat", caller, endpoint, name, lambda limit_s: begin(endpoint, request.within(limit_s)), timeout_s=self._stream_idle_s
            )

        return await first_that_answers(await self._resolver.choices("chat", provider, model), ask)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        caller: Principal | None = None,
        provider: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
    ) -> EmbeddingResult:
        """One vector for each text, in their order. Raises the errors of ``resolve`` and of ``adapters.model_failures``, and InvalidRequest
        when there is no text, when one is empty or too long, or when the model cannot make vectors of so many ``dimensions``."""
        check_texts(texts)

        async def ask(endpoint: Endpoint, name: str) -> EmbeddingResult:
            embed = self._embedding_transport(endpoint).embed

            async def ask_for_batch(batch: EmbeddingRequest) -> EmbeddingResult:
                return await self._calling.call(
                    "embedding", caller, endpoint, name, lambda limit_s: embed(endpoint, batch.within(limit_s)), timeout_s=self._timeout_s
                )

            return await embed_in_batches(ask_for_batch, endpoint, EmbeddingRequest(name, texts, dimensions))

        return await first_that_answers(await self._resolver.choices("embedding", provider, model), ask)

    async def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        speed: float | None = None,
        caller: Principal | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> SpeechResult:
        """A text as sound. A voice is passed on as it is named. Raises the errors of ``resolve`` and of ``adapters.model_failures``."""

        async def ask(found: Endpoint, name: str) -> SpeechResult:
            traits, endpoint = traits_of(found), speech_endpoint(found)
            request = SpeechRequest(name, text, voice or traits.voices[0], speed if traits.has_speed else None)
            speak = self._speech_transport(endpoint).speak
            return await self._calling.call(
                "speech", caller, endpoint, name, lambda limit_s: speak(endpoint, request.within(limit_s)), timeout_s=self._timeout_s
            )

        return await first_that_answers(await self._resolver.choices("speech", provider, model), ask)

    async def count_embedding_tokens(
        self, texts: Sequence[str], *, provider: str | None = None, model: str | None = None
    ) -> tuple[list[int], int] | None:
        """How many tokens each text has for the model, and how many it may have; None when that is not known of the model."""
        endpoint, _ = await self.resolve(provider, model, role="embedding")
        if endpoint.kind != NATIVE:
            return None
        from adapters import minilm

        return await self._open_native().count_tokens(texts), minilm.MAX_TOKENS

    async def resolve(self, provider: str | None, model: str | None, *, role: Role = "chat") -> tuple[Endpoint, str]:
        """Where to send a request, and the model's name there. ``provider/model`` as the model names both.

        Raises Unavailable (PROVIDER_UNAVAILABLE) when nothing is configured, InvalidRequest when this provider is not.
        """
        return await self._resolver.resolve(role, provider, model)

    async def context_window(self, provider: str | None = None, model: str | None = None) -> int | None:
        """How many tokens of a conversation the model takes, by LiteLLM's list; None when that does not have it. Raises as ``resolve``."""
        endpoint, name = await self.resolve(provider, model)
        listed_as = catalog_name(endpoint)
        return await asyncio.to_thread(context_window_of, listed_as, name) if listed_as else None

    async def providers(self) -> list[Provider]:
        """All providers with the models that can chat, the default first. One that does not answer within 2 s is shown with the models
        that are known without asking, or left out when there are none."""
        return await self._resolver.providers("chat")

    async def embedding_providers(self) -> list[Provider]:
        """The same for the models that make embeddings."""
        return await self._resolver.providers("embedding")

    async def speakers(self) -> list[Speaker]:
        """The providers that speak, with their models as far as they tell them within 2 s, and those that would if there was a key."""
        return await self._resolver.speakers()

    async def find_speaker(self, name: str) -> Speaker | None:
        """One of them. Nobody is asked, so it may turn out that it has no model that speaks."""
        return await self._resolver.find_speaker(name)

    async def configured_providers(self) -> list[Provider]:
        """What the database and the environment configure, whether it answers or not, with the models that were named, the default for
        chats first; nobody is asked."""
        configured, default = await self._resolver.configured(), await self._resolver.known_default("chat")
        configured.sort(key=lambda each: each is not default)
        return [show_provider(each, each.models, active=each is default) for each in configured]

    async def add_provider(
        self,
        name: str,
        *,
        kind: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        models: Sequence[str] = (),
        is_default: bool = False,
    ) -> Provider:
        """Keep a provider in the database. ``kind`` and ``base_url`` may be left out for a well-known name.

        Raises InvalidRequest, or Conflict (PROVIDER_EXISTS).
        """
        known = find_known_provider(check_provider_name(name))
        kind = kind or (DIRECT if base_url or known is None else known.kind)
        address = check_base_url(base_url) if base_url else known.base_url if known and known.kind == kind else None
        if kind == DIRECT and address is None:
            raise InvalidRequest(f"The provider '{name}' needs a base URL, such as http://127.0.0.1:8000/v1.")
        if kind != DIRECT and not await self._litellm.knows_provider(kind):
            message = f"'{kind[:80]}' is neither 'openai' (whatever speaks OpenAI's protocol) nor a provider that LiteLLM knows."
            raise InvalidRequest(message)
        if any(not each.strip() or not each.isprintable() for each in models):
            raise InvalidRequest("The name of a model must not be empty.")
        models = models or (known.models if known and known.kind == kind else ())
        endpoint = Endpoint(name, kind, address, check_key(api_key))
        await self._stored.add(endpoint, models, is_default=is_default)
        default = await self._resolver.known_default("chat")
        added = ConfiguredProvider(endpoint, "database", tuple(models))
        return show_provider(added, models, active=default is not None and default.name == name)

    async def remove_provider(self, name: str) -> None:
        """Remove a provider from the database. Raises NotFound."""
        await self._stored.remove(name, is_still_configured=self._resolver.is_in_environment(name))

    async def test_provider(self, name: str) -> ProviderTest:
        """Try a provider, and say in a sentence whether it works or what is wrong."""
        return await Trial(self._resolver, self._open_direct(), self._litellm, self.embed, self.speak).run(name)

    async def report_usage(self, since: datetime | None = None, until: datetime | None = None, group_by: GroupBy = "model") -> UsageReport:
        """How much models were used: since REPORT_SPAN ago, until now, unless said otherwise."""
        await self.usage.flush()
        now = datetime.now(UTC)
        return await read_usage(self._database, since or now - REPORT_SPAN, until or now, group_by)

    async def warm(self) -> None:
        """Load what the first request would have to wait for: LiteLLM when a provider needs it, and what is known of named models."""
        configured = await self._resolver.configured()
        if any(provider.models for provider in configured):
            await asyncio.to_thread(load_catalog)
        if any(provider.endpoint.kind != DIRECT for provider in configured):
            await self._litellm.warm()
        # Only imported there: made in a thread and by a request at once, there would be two.
        await asyncio.to_thread(import_module, "adapters.openai_protocol")

    def follow(self, notifications: Notifications) -> None:
        """Know at once which providers, routes and limits another process has changed, instead of some seconds later."""
        self._stored.follow(notifications)

    async def close(self) -> None:
        """Write down what was used, and close connections to providers."""
        await self.usage.close()
        await self._lists.close()
        if self._direct is not None:
            await self._direct.close()
        await self._litellm.close()
        if self._native is not None:
            await self._native.close()

    def _transport(self, endpoint: Endpoint) -> ChatTransport:
        return self._open_direct() if endpoint.kind == DIRECT else self._litellm

    def _embedding_transport(self, endpoint: Endpoint) -> EmbeddingTransport:
        if endpoint.kind == NATIVE:
            return self._open_native()
        return self._open_direct() if endpoint.kind == DIRECT else self._litellm

    def _speech_transport(self, endpoint: Endpoint) -> SpeechTransport:
        return self._open_direct() if endpoint.kind == DIRECT else self._litellm

    def _open_direct(self) -> "OpenAIProtocol":
        # Its HTTP client takes a while to import: not for a command that asks no model.
        if self._direct is None:
            from adapters.openai_protocol import OpenAIProtocol

            self._direct = OpenAIProtocol(self._timeout_s, self._stream_idle_s)
        return self._direct

    def _open_native(self) -> "MiniLM":
        if self._native is None:
            from adapters.minilm import MiniLM

            self._native = MiniLM()
        return self._native
