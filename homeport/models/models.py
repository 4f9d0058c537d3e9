"""Choosing a provider and a model, and chatting with them.

Providers come from the database, from the environment, and from an Ollama that runs here, in this order; the first of a name wins, and the
first of all is the default. Ollama is only looked for when nothing else is configured or somebody asks for it or for the list.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from adapters.chat import ChatRequest, ChatResult, ChatStream, ChatTransport, Endpoint
from adapters.litellm import LiteLLM
from adapters.model_catalog import list_chat_models
from adapters.openai_protocol import OpenAIProtocol
from adapters.postgres import Database
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.models.environment import find_known_provider, read_environment, recognize_provider
from homeport.models.messages import normalize_messages
from homeport.models.model_lists import LIST_S, ModelLists
from homeport.models.providers import ConfiguredProvider, Model, Provider, ProviderTest, check_base_url, check_provider_name
from homeport.models.stored_providers import StoredProviders
from homeport.secrets import SecretBox
from homeport.settings import Settings

log = structlog.get_logger(__name__)

DIRECT = "openai"
OLLAMA = "ollama"
OLLAMA_FRESH_S = 10.0
TEST_TOKENS = 16


class Models:
    """The models that this server can reach."""

    def __init__(self, settings: Settings, database: Database, secret_box: SecretBox, environ: Mapping[str, str] = os.environ) -> None:
        self._direct = OpenAIProtocol(settings.chat_timeout_s, settings.stream_idle_s)
        self._litellm = LiteLLM(settings.chat_timeout_s, settings.stream_idle_s)
        self._stored = StoredProviders(database, secret_box)
        self._environment = read_environment(environ)
        self._ollama = _ollama(settings)
        self._lists = ModelLists(lambda endpoint: self._transport(endpoint).list_models(endpoint))

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        provider: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
    ) -> ChatResult:
        """Answer a conversation. Raises the errors of ``resolve`` and of ``adapters.chat``."""
        endpoint, name = await self.resolve(provider, model)
        request = ChatRequest(name, normalize_messages(messages), temperature, max_tokens, response_format)
        return await self._transport(endpoint).chat(endpoint, request)

    async def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        provider: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
    ) -> ChatStream:
        """Begin to answer a conversation. What fails before the first piece is raised here, as by ``chat``."""
        endpoint, name = await self.resolve(provider, model)
        request = ChatRequest(name, normalize_messages(messages), temperature, max_tokens, response_format)
        return await self._transport(endpoint).open_stream(endpoint, request)

    async def resolve(self, provider: str | None, model: str | None) -> tuple[Endpoint, str]:
        """Where to send a chat, and the model's name there. ``provider/model`` as the model names both.

        Raises Unavailable (PROVIDER_UNAVAILABLE) when nothing is configured, InvalidRequest when this provider is not.
        """
        configured = await self._configured()
        chosen = self._find(configured, provider.lower()) if provider else None
        if not provider and model and "/" in model:
            prefix, _, rest = model.partition("/")
            chosen = self._find(configured, prefix)
            model = rest if chosen and rest else model
        if chosen is None:
            chosen = await self._default(configured)
            if provider:
                raise self._not_configured(provider, configured or [chosen])
        if chosen.problem is not None:
            raise chosen.problem
        endpoint = chosen.endpoint
        name = model or await self._default_model(chosen)
        return endpoint, name if endpoint.kind == DIRECT else name.removeprefix(f"{endpoint.kind}/")

    async def providers(self) -> list[Provider]:
        """All providers with the models that can chat, the default first. One that does not answer within 2 s is shown with the models
        that are known without asking, or left out when there are none."""
        configured = await self._configured()
        has_ollama_row = any(each.name == OLLAMA for each in configured)
        candidates = [*configured] if has_ollama_row or self._ollama is None else [*configured, self._ollama]
        lists = await asyncio.gather(*(self._known_models(candidate) for candidate in candidates))
        shown = [(candidate, models) for candidate, models in zip(candidates, lists, strict=True) if models]
        default = configured[0] if configured else self._ollama
        return [_shown(candidate, models, active=candidate is default) for candidate, models in shown]

    async def configured_providers(self) -> list[Provider]:
        """What the database and the environment configure, whether it answers or not, with the models that were named; nobody is asked."""
        configured = await self._configured()
        return [_shown(each, each.models, active=each is configured[0]) for each in configured]

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
        endpoint = Endpoint(name, kind, address, (api_key or "").strip() or None)
        await self._stored.add(endpoint, models, is_default=is_default)
        default = (await self._configured())[0]
        return _shown(ConfiguredProvider(endpoint, "database", tuple(models)), models, active=default.name == name)

    async def remove_provider(self, name: str) -> None:
        """Remove a provider from the database. Raises NotFound."""
        await self._stored.remove(name)

    async def set_default_provider(self, name: str) -> None:
        """Use this provider of the database when a request names none. Raises NotFound."""
        await self._stored.set_default(name)

    async def test_provider(self, name: str) -> ProviderTest:
        """Try a provider: ask for its list of models, or where there is none to ask for, chat in a few tokens."""
        try:
            endpoint, model = await self.resolve(name, None)
            if endpoint.kind == DIRECT:
                models = await self._direct.list_models(endpoint)
                return ProviderTest(True, f"'{name}' works: it has {len(models)} models that can chat. The default is {model}.")
            request = ChatRequest(model, [{"role": "user", "content": "Say yes."}], max_tokens=TEST_TOKENS)
            await self._litellm.chat(endpoint, request)
            return ProviderTest(True, f"'{name}' works: {model} answered.")
        except AppError as error:
            return ProviderTest(False, f"'{name}' does not work: {error.message}")

    async def warm(self) -> None:
        """Import LiteLLM when a provider needs it, so that the first chat does not wait for it."""
        if any(provider.endpoint.kind != DIRECT for provider in await self._configured()):
            await self._litellm.warm()

    async def close(self) -> None:
        """Close connections to providers."""
        await self._lists.close()
        await self._direct.close()
        await self._litellm.close()

    def _transport(self, endpoint: Endpoint) -> ChatTransport:
        return self._direct if endpoint.kind == DIRECT else self._litellm

    async def _configured(self) -> list[ConfiguredProvider]:
        """What the database and the environment configure, the default first."""
        stored = await self._stored.list()
        names = {provider.name for provider in stored}
        return [*stored, *(provider for provider in self._environment if provider.name not in names)]

    def _find(self, configured: Sequence[ConfiguredProvider], name: str) -> ConfiguredProvider | None:
        found = next((provider for provider in configured if provider.name == name), None)
        return self._ollama if found is None and name == OLLAMA else found

    async def _default(self, configured: Sequence[ConfiguredProvider]) -> ConfiguredProvider:
        if configured:
            return configured[0]
        if self._ollama is not None:
            try:
                await self._lists.get(self._ollama.endpoint, fresh_s=OLLAMA_FRESH_S)
                return self._ollama
            except AppError as error:
                log.info("no Ollama found", reason=error.message)
        raise Unavailable(
            "No model provider is configured. Set OPENAI_API_KEY (or another provider's key) for this server, start Ollama, "
            "or run `homeport models add`.",
            code="PROVIDER_UNAVAILABLE",
        )

    def _not_configured(self, provider: str, configured: Sequence[ConfiguredProvider]) -> InvalidRequest:
        names = ", ".join(each.name for each in configured)
        return InvalidRequest(f"The model provider '{provider[:80]}' is not configured. Configured: {names}.")

    async def _default_model(self, provider: ConfiguredProvider) -> str:
        """The first model that was configured, else the provider's usual one if it has it, else the first that it lists."""
        if provider.models:
            return provider.models[0]
        known = recognize_provider(provider.endpoint)
        usual = known.default_model if known else None
        try:
            models = await self._lists.get(provider.endpoint, may_be_old=True)
        except AppError:
            if usual is None:
                raise
            return usual
        if usual in models:
            return usual
        if models:
            return models[0]
        raise InvalidRequest(f"The model provider '{provider.name}' names no models: choose one.", code="INVALID_MODEL")

    async def _known_models(self, provider: ConfiguredProvider) -> Sequence[str]:
        if provider.models or provider.problem is not None:
            return provider.models
        try:
            return await self._lists.get(provider.endpoint, fresh_s=OLLAMA_FRESH_S if provider is self._ollama else LIST_S)
        except AppError as error:
            log.info("model provider gives no list of models", provider=provider.name, reason=error.message)
        known = recognize_provider(provider.endpoint)
        return await asyncio.to_thread(list_chat_models, known.catalog or known.name) if known else ()


def _ollama(settings: Settings) -> ConfiguredProvider | None:
    if not settings.ollama_url:
        return None
    try:
        return ConfiguredProvider(Endpoint(OLLAMA, DIRECT, f"{check_base_url(settings.ollama_url)}/v1"), "ollama")
    except InvalidRequest as error:
        log.warning("Ollama is not looked for", reason=error.message)
        return None


def _shown(provider: ConfiguredProvider, models: Sequence[str], *, active: bool) -> Provider:
    endpoint = provider.endpoint
    shown = tuple(Model(each, each) for each in models)
    return Provider(endpoint.provider, endpoint.kind, provider.source, endpoint.base_url, shown, active)
