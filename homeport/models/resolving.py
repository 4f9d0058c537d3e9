"""Which provider and which model a request goes to.

Providers come from the database, from the environment, and from an Ollama that runs here, in this order; the first of a name wins, and the
first that can do what is asked is the default. For embeddings there is one more, ``native``, which is the default until another is set.
Ollama is only looked for when there is no other, or somebody asks for it or for the list.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import structlog

from adapters.chat import Endpoint
from adapters.model_catalog import Role, known_models
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.models.calling import Locate
from homeport.models.environment import read_environment, recognize_provider
from homeport.models.model_lists import LIST_S, ModelLists
from homeport.models.providers import NATIVE, ConfiguredProvider, Model, Provider, check_base_url
from homeport.models.routes import Target
from homeport.models.speech import Speaker, missing_speakers, speaker_of
from homeport.models.stored_providers import StoredProviders
from homeport.settings import Settings

log = structlog.get_logger(__name__)

DIRECT = "openai"
OLLAMA = "ollama"
OLLAMA_FRESH_S = 10.0

NONE_CONFIGURED = (
    "No model provider is configured{purpose}. Set OPENAI_API_KEY (or another provider's key) for this server, start Ollama, "
    "or run `homeport models add`."
)
KINDS: dict[Role, tuple[str, str]] = {
    "chat": ("a model that can chat", "models that can chat"),
    "embedding": ("an embedding model", "embedding models"),
    "speech": ("a model that speaks", "models that speak"),
}


class Resolver:
    """The providers that there are, and the choice among them."""

    def __init__(self, settings: Settings, stored: StoredProviders, lists: ModelLists, environ: Mapping[str, str]) -> None:
        self._stored = stored
        self._lists = lists
        self._environment = read_environment(environ)
        self._ollama = _ollama(settings)
        self._native = _native()

    async def resolve(self, role: Role, provider: str | None, model: str | None) -> tuple[Endpoint, str]:
        """Where to send a request, and the model's name there. ``provider/model`` as the model names both.

        Raises Unavailable (PROVIDER_UNAVAILABLE) when nothing is configured, InvalidRequest when this provider is not.
        """
        providers = await self._candidates(role)
        chosen = self._find(providers, provider.lower()) if provider else None
        if not provider and model and "/" in model:
            prefix, _, rest = model.partition("/")
            chosen = self._find(providers, prefix)
            model = rest if chosen and rest else model
        if chosen is None:
            chosen, usual = await self._default(role, providers)
            if provider:
                raise _not_configured(provider, providers or [chosen])
            if model and chosen is self._native and model.rpartition("/")[2].lower() != chosen.models[0].lower():
                chosen = await self._other_embedder(model, providers) or chosen
            model = model or usual
        elif not model:
            model = next((each.model for each in await self._route(role) if each.provider == chosen.name), None)
        if chosen.problem is not None:
            raise chosen.problem
        endpoint = chosen.endpoint
        name = model or await self._default_model(role, chosen)
        return endpoint, name if endpoint.kind == DIRECT else name.removeprefix(f"{endpoint.kind}/")

    async def choices(self, role: Role, provider: str | None, model: str | None) -> list[Locate]:
        """How to resolve a request, and after that its fallbacks, in order. One that names a provider or a model has none."""
        if provider or model:
            return [partial(self.resolve, role, provider, model)]
        providers = await self._candidates(role)
        targets = [each for each in await self._route(role) if self._find(providers, each.provider)]
        return [partial(self.resolve, role, each.provider, each.model) for each in targets] or [partial(self.resolve, role, None, None)]

    async def providers(self, role: Role) -> list[Provider]:
        """All providers with their models of this role, the default first. One that does not answer within 2 s is shown with the models
        that are known without asking, or left out when there are none."""
        providers = await self._candidates(role)
        has_ollama_row = any(each.name == OLLAMA for each in providers)
        candidates = [*providers] if has_ollama_row or self._ollama is None else [*providers, self._ollama]
        lists = await asyncio.gather(*(self._known_models(role, candidate) for candidate in candidates))
        shown = [(candidate, models) for candidate, models in zip(candidates, lists, strict=True) if models]
        default = await self._default_or_none(role, providers)
        shown.sort(key=lambda each: each[0] is not default)
        return [show_provider(candidate, models, active=candidate is default) for candidate, models in shown]

    async def configured(self) -> list[ConfiguredProvider]:
        """What the database and the environment configure; nobody is asked."""
        stored = await self._stored.read()
        names = {provider.name for provider in stored.providers}
        return [*stored.providers, *(provider for provider in self._environment if provider.name not in names)]

    async def known_default(self, role: Role) -> ConfiguredProvider | None:
        """The provider that is used when a request names none, as far as it is known without asking anybody."""
        known = await self._known_default(role, await self._candidates(role))
        return known[0] if known else None

    async def find(self, role: Role, name: str) -> ConfiguredProvider | None:
        """The provider of this name, if it can be asked for this."""
        return self._find(await self._candidates(role), name)

    async def speakers(self) -> list[Speaker]:
        """The providers that have models that speak, and the well-known ones that would if there was a key. Waits for lists for 2 s."""
        providers = await self.configured()
        lists = await asyncio.gather(*(self._known_models("speech", each) for each in providers))
        found = [speaker_of(each, models) for each, models in zip(providers, lists, strict=True) if models]
        return [*found, *missing_speakers({each.name for each in providers})]

    async def find_speaker(self, name: str) -> Speaker | None:
        """One of them. Nobody is asked, so it may turn out that it has no model that speaks."""
        providers = await self.configured()
        found = next((each for each in providers if each.name == name), None)
        if found is not None:
            return speaker_of(found) if found.may_serve("speech") else None
        return next((each for each in missing_speakers(()) if each.name == name), None)

    def is_in_environment(self, name: str) -> bool:
        """Whether the environment configures a provider of this name."""
        return any(each.name == name for each in self._environment)

    async def _route(self, role: Role) -> tuple[Target, ...]:
        return (await self._stored.read()).routes.get(role, ())

    async def _candidates(self, role: Role) -> list[ConfiguredProvider]:
        configured = await self.configured()
        return [*configured, self._native] if role == "embedding" and self._native else configured

    def _find(self, providers: Sequence[ConfiguredProvider], name: str) -> ConfiguredProvider | None:
        found = next((provider for provider in providers if provider.name == name), None)
        return self._ollama if found is None and name == OLLAMA else found

    async def _default(self, role: Role, providers: Sequence[ConfiguredProvider]) -> tuple[ConfiguredProvider, str | None]:
        """Who answers a request that names no provider, and the model that was set for that. Raises Unavailable when nobody can."""
        if known := await self._known_default(role, providers):
            return known
        if role != "chat":
            return await self._first_that_has(role, providers), None
        if self._ollama is not None:
            try:
                await self._lists.get(self._ollama.endpoint, fresh_s=OLLAMA_FRESH_S)
                return self._ollama, None
            except AppError as error:
                log.info("no Ollama found", reason=error.message)
        raise Unavailable(NONE_CONFIGURED.format(purpose=""), code="PROVIDER_UNAVAILABLE")

    async def _known_default(self, role: Role, providers: Sequence[ConfiguredProvider]) -> tuple[ConfiguredProvider, str | None] | None:
        """The same as far as it is known without asking anybody: what was set, else the first that can do it."""
        for target in await self._route(role):
            if found := self._find(providers, target.provider):
                return found, target.model
        first = self._native if role == "embedding" else None
        if role == "chat":
            first = next((each for each in providers if each.may_serve(role)), None)
        return (first, None) if first is not None else None

    async def _first_that_has(self, role: Role, providers: Sequence[ConfiguredProvider]) -> ConfiguredProvider:
        """Where nothing does this by default: the first that has a model for it."""
        for provider in [*providers, *([self._ollama] if self._ollama else [])]:
            if await self._known_models(role, provider):
                return provider
        raise Unavailable(NONE_CONFIGURED.format(purpose=f" that has {KINDS[role][0]}"), code="PROVIDER_UNAVAILABLE")

    async def _other_embedder(self, model: str, providers: Sequence[ConfiguredProvider]) -> ConfiguredProvider | None:
        """Whom to ask for a model that is not the one that is built in: who lists it, else the first that has any."""
        others = [each for each in providers if each is not self._native]
        lists = await asyncio.gather(*(self._known_models("embedding", each) for each in others))
        able = [(each, models) for each, models in zip(others, lists, strict=True) if models]
        return next((each for each, models in able if model in models), able[0][0] if able else None)

    async def _default_or_none(self, role: Role, providers: Sequence[ConfiguredProvider]) -> ConfiguredProvider | None:
        try:
            return (await self._default(role, providers))[0]
        except Unavailable:
            return None

    async def _default_model(self, role: Role, provider: ConfiguredProvider) -> str:
        """The first model that was configured, else the provider's usual one if it has it, else the first that it lists."""
        if named := provider.named(role):
            return named[0]
        known = recognize_provider(provider.endpoint)
        usual = known.usual_model(role) if known else None
        models: Sequence[str] = ()
        if not provider.models:
            try:
                models = (await self._lists.get(provider.endpoint, may_be_old=True)).of(role)
            except AppError:
                if usual is None:
                    raise
        if models and usual not in models:
            return models[0]
        if usual is not None and not provider.models:
            return usual
        raise InvalidRequest(f"The model provider '{provider.name}' names no {KINDS[role][1]}: choose one.", code="INVALID_MODEL")

    async def _known_models(self, role: Role, provider: ConfiguredProvider) -> Sequence[str]:
        if provider.models or provider.problem is not None:
            return provider.named(role)
        try:
            models = await self._lists.get(provider.endpoint, fresh_s=OLLAMA_FRESH_S if provider is self._ollama else LIST_S)
            return models.of(role)
        except AppError as error:
            log.info("model provider gives no list of models", provider=provider.name, reason=error.message)
        known = recognize_provider(provider.endpoint)
        return (await asyncio.to_thread(known_models, known.catalog or known.name)).of(role) if known else ()


def show_provider(provider: ConfiguredProvider, models: Sequence[str], *, active: bool) -> Provider:
    """A provider without its key, with these models."""
    endpoint = provider.endpoint
    shown = tuple(Model(each, each) for each in models)
    return Provider(endpoint.provider, endpoint.kind, provider.source, endpoint.base_url, shown, active)


def _ollama(settings: Settings) -> ConfiguredProvider | None:
    if not settings.ollama_url:
        return None
    try:
        return ConfiguredProvider(Endpoint(OLLAMA, DIRECT, f"{check_base_url(settings.ollama_url)}/v1"), "ollama")
    except InvalidRequest as error:
        log.warning("Ollama is not looked for", reason=error.message)
        return None


def _native() -> ConfiguredProvider | None:
    """The embedding model that is built in, where its files are installed."""
    from adapters import minilm

    if not minilm.is_installed():
        return None
    return ConfiguredProvider(Endpoint(minilm.PROVIDER, NATIVE), "native", (minilm.MODEL,))


def _not_configured(provider: str, providers: Sequence[ConfiguredProvider]) -> InvalidRequest:
    names = ", ".join(each.name for each in providers)
    return InvalidRequest(f"The model provider '{provider[:80]}' is not configured. Configured: {names}.")
