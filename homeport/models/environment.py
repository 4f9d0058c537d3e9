"""Providers that the environment configures: the variables that each provider's own tools read."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from adapters.chat import Endpoint
from adapters.model_catalog import Role
from homeport.errors import InvalidRequest
from homeport.models.providers import ConfiguredProvider, check_base_url

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """How much one request for embeddings may hold.

    Limits of tokens are kept by counting characters, each as a token of its own at worst.
    """

    texts: int
    characters: int = 250_000


# What text-embeddings-inference takes as it comes; most others take more.
DEFAULT_EMBEDDING_LIMITS = EmbeddingLimits(32)


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """A provider that needs no more than its key. ``catalog`` is LiteLLM's name of it, by which its models are known.

    ``models`` are all that it has, where it does not chat. ``speech_kind`` is the kind that it is for speech, where that is another.
    """

    name: str
    kind: str
    key_variables: tuple[str, ...]
    base_url: str | None = None
    base_url_variables: tuple[str, ...] = ()
    default_model: str | None = None
    default_embedding_model: str | None = None
    embedding_limits: EmbeddingLimits = DEFAULT_EMBEDDING_LIMITS
    catalog: str | None = None
    models: tuple[str, ...] = ()
    default_speech_model: str | None = None
    speech_kind: str | None = None

    def usual_model(self, role: Role) -> str | None:
        """Its default model for this."""
        defaults = {"chat": self.default_model, "embedding": self.default_embedding_model, "speech": self.default_speech_model}
        return defaults[role]


# In the order in which they are the default. A default model only where the provider keeps a name alive for years.
KNOWN_PROVIDERS = (
    KnownProvider(
        name="openai",
        kind="openai",
        key_variables=("OPENAI_API_KEY",),
        base_url="https://api.openai.com/v1",
        base_url_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        default_model="gpt-4o-mini",
        default_embedding_model="text-embedding-3-small",
        embedding_limits=EmbeddingLimits(2048),
        default_speech_model="gpt-4o-mini-tts",
    ),
    KnownProvider("anthropic", "anthropic", ("ANTHROPIC_API_KEY",), default_model="claude-haiku-4-5"),
    KnownProvider(
        name="gemini",
        kind="gemini",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        default_model="gemini-flash-latest",
        default_embedding_model="gemini-embedding-001",
        embedding_limits=EmbeddingLimits(100),
        default_speech_model="gemini-3.8-flash-tts",
    ),
    KnownProvider(
        name="mistral",
        kind="openai",
        key_variables=("MISTRAL_API_KEY",),
        base_url="https://api.mistral.ai/v1",
        default_model="mistral-small-latest",
        default_embedding_model="mistral-embed",
        embedding_limits=EmbeddingLimits(128, 16_000),
        default_speech_model="voxtral-mini-tts-latest",
        speech_kind="mistral",
    ),
    KnownProvider(
        name="groq",
        kind="openai",
        key_variables=("GROQ_API_KEY",),
        base_url="https://api.groq.com/openai/v1",
        default_speech_model="canopylabs/orpheus-v1-english",
    ),
    KnownProvider("deepseek", "openai", ("DEEPSEEK_API_KEY",), "https://api.deepseek.com/v1"),
    KnownProvider("openrouter", "openai", ("OPENROUTER_API_KEY",), "https://openrouter.ai/api/v1", default_model="openrouter/auto"),
    KnownProvider("together", "openai", ("TOGETHER_API_KEY", "TOGETHERAI_API_KEY"), "https://api.together.xyz/v1", catalog="together_ai"),
    KnownProvider("xai", "openai", ("XAI_API_KEY",), "https://api.x.ai/v1"),
    KnownProvider(
        name="cohere",
        kind="cohere_chat",
        key_variables=("COHERE_API_KEY", "CO_API_KEY"),
        default_model="command-a-03-2025",
        default_embedding_model="embed-v4.0",
        embedding_limits=EmbeddingLimits(96),
    ),
    KnownProvider(
        name="perplexity",
        kind="openai",
        key_variables=("PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"),
        base_url="https://api.perplexity.ai",
        default_model="sonar",
    ),
    KnownProvider(
        name="fireworks",
        kind="openai",
        key_variables=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
        base_url="https://api.fireworks.ai/inference/v1",
        catalog="fireworks_ai",
    ),
    KnownProvider("cerebras", "openai", ("CEREBRAS_API_KEY",), "https://api.cerebras.ai/v1"),
    KnownProvider("sambanova", "openai", ("SAMBANOVA_API_KEY",), "https://api.sambanova.ai/v1"),
    KnownProvider("deepinfra", "openai", ("DEEPINFRA_API_KEY",), "https://api.deepinfra.com/v1/openai"),
    KnownProvider("moonshot", "openai", ("MOONSHOT_API_KEY",), "https://api.moonshot.ai/v1"),
    KnownProvider("nvidia", "openai", ("NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"), "https://integrate.api.nvidia.com/v1"),
    KnownProvider(
        name="elevenlabs",
        kind="elevenlabs",
        key_variables=("ELEVENLABS_API_KEY",),
        models=("eleven_multilingual_v2", "eleven_v3"),
        default_speech_model="eleven_multilingual_v2",
    ),
)


def find_known_provider(name: str) -> KnownProvider | None:
    """The known provider of this name."""
    return next((known for known in KNOWN_PROVIDERS if known.name == name), None)


def recognize_provider(endpoint: Endpoint) -> KnownProvider | None:
    """The known provider that an endpoint is: by name and address, so not another server under its name."""
    known = find_known_provider(endpoint.provider)
    return known if known and (known.kind, known.base_url) == (endpoint.kind, endpoint.base_url) else None


def catalog_name(endpoint: Endpoint) -> str | None:
    """LiteLLM's name of the provider that an endpoint is; None for a server of one's own that speaks OpenAI's protocol."""
    if endpoint.kind != "openai":
        return endpoint.kind
    known = recognize_provider(endpoint)
    return (known.catalog or known.name) if known else None


def read_environment(environ: Mapping[str, str]) -> list[ConfiguredProvider]:
    """The providers for which there is a key, or an address of their own (a local server needs no key).

    One whose address is wrong is logged and left out.
    """
    found = []
    for known in KNOWN_PROVIDERS:
        api_key = _first_of(environ, known.key_variables)
        base_url = _first_of(environ, known.base_url_variables)
        if api_key is None and base_url is None:
            continue
        try:
            address = check_base_url(base_url) if base_url else known.base_url
        except InvalidRequest as error:
            log.warning("model provider left out", provider=known.name, variables=known.base_url_variables, reason=error.message)
            continue
        found.append(ConfiguredProvider(Endpoint(known.name, known.kind, address, api_key), "environment", known.models))
    return found


def _first_of(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := environ.get(name, "").strip())), None)
