"""What LiteLLM knows about models, read from the list that its package carries, without importing the package (3 s, 190 MB)."""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

LIST_FILE = "model_prices_and_context_window_backup.json"

Role = Literal["chat", "embedding", "speech"]

# Names of models for those that the list does not know: what turns texts into vectors, what speaks, and what does neither that nor chat.
EMBEDDING = re.compile(r"embed|minilm|mpnet|\bbge-|\bgte-|\be5-|\bvoyage-|\buae-", re.IGNORECASE)
SPEECH = re.compile(r"\btts|[-_]tts|kokoro|orpheus|\beleven_", re.IGNORECASE)
OTHER_KINDS = re.compile(
    r"rerank|moderation|whisper|transcri|\btts|-tts|audio|realtime|dall-e|image|sora|veo-|imagen|"
    r"babbage-|davinci-|turbo-instruct|guard",
    re.IGNORECASE,
)
# Providers whose embedding models the list has under another name.
EMBEDDING_NAMES = {"cohere": "cohere_chat", "fireworks_ai-embedding-models": "fireworks_ai", "vertex_ai-embedding-models": "vertex_ai"}


class ModelIds(NamedTuple):
    """Ids of models by what they do."""

    chat: tuple[str, ...] = ()
    embedding: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()

    def of(self, role: Role) -> tuple[str, ...]:
        """Those that do this."""
        ids: tuple[str, ...] = getattr(self, role)
        return ids


class Price(NamedTuple):
    """US dollars for a token, without discounts (cached prompts, batches)."""

    prompt_usd: Decimal
    completion_usd: Decimal


class Catalog(NamedTuple):
    """By LiteLLM's provider name: ``models``, not counting retired ones, ``modes`` of all, prices, and how many tokens may be put in. Ids
    lack the provider's prefix."""

    models: Mapping[str, ModelIds]
    modes: Mapping[str, Mapping[str, str]]
    prices: Mapping[tuple[str, str], tuple[float, float]]
    windows: Mapping[tuple[str, str], int]


@cache
def load_catalog() -> Catalog:
    """Read the list; takes some 30 ms the first time. Empty when the package carries none."""
    package = find_spec("litellm")
    path = Path(package.origin).with_name(LIST_FILE) if package and package.origin else None
    if path is None or not path.is_file():
        return Catalog({}, {}, {}, {})
    today = date.today().isoformat()
    modes: dict[str, dict[str, str]] = {}
    models: dict[str, dict[Role, list[str]]] = {}
    prices: dict[tuple[str, str], tuple[float, float]] = {}
    windows: dict[tuple[str, str], int] = {}
    for key, entry in orjson.loads(path.read_bytes()).items():
        listed_as, mode = str(entry.get("litellm_provider")), entry.get("mode")
        if not isinstance(mode, str):
            continue
        provider = EMBEDDING_NAMES.get(listed_as, listed_as) if mode == "embedding" else listed_as
        name = key.removeprefix(f"{listed_as}/").removeprefix(f"{provider}/")
        modes.setdefault(provider, {})[name] = mode
        if isinstance(price := entry.get("input_cost_per_token"), int | float):
            prices[provider, name] = (price, entry.get("output_cost_per_token") or 0)
        if isinstance(window := entry.get("max_input_tokens") or entry.get("max_tokens"), int):
            windows[provider, name] = window
        is_retired = str(entry.get("deprecation_date") or "9999") < today
        role = _ROLES.get(mode)
        if role and not is_retired and _is_what_it_says(key, role):
            models.setdefault(provider, {}).setdefault(role, []).append(name)
    ids = {provider: {role: tuple(dict.fromkeys(names)) for role, names in roles.items()} for provider, roles in models.items()}
    return Catalog({provider: ModelIds(**roles) for provider, roles in ids.items()}, modes, prices, windows)


def known_models(kind: str) -> ModelIds:
    """The models of a LiteLLM provider, not counting retired ones; none when it is not known."""
    return load_catalog().models.get(EMBEDDING_NAMES.get(kind, kind), ModelIds())


def price_of(kind: str, model: str) -> Price | None:
    """What a model of a LiteLLM provider costs; None when the list does not know it."""
    found = load_catalog().prices.get((EMBEDDING_NAMES.get(kind, kind), model))
    return Price(*(Decimal(str(each)) for each in found)) if found else None


def context_window_of(kind: str, model: str) -> int | None:
    """How many tokens may be put into a model of a LiteLLM provider; None when the list does not know it."""
    return load_catalog().windows.get((EMBEDDING_NAMES.get(kind, kind), model))


def role_of(item: Mapping[str, Any], kind: str = "openai") -> Role | None:
    """What a model does, as far as its entry in a provider's own list, the catalogue (by LiteLLM's name of the provider) or its name tells.

    None: something else. An entry has an ``id`` at least.
    """
    name = str(item["id"])
    capabilities = item.get("capabilities")
    if isinstance(capabilities, Mapping) and "completion_chat" in capabilities:  # Mistral
        return "chat" if capabilities["completion_chat"] else _role_by_name(name)
    if isinstance(item.get("type"), str) and item["type"] != "model":  # Together
        return _ROLES.get(item["type"])
    mode = load_catalog().modes.get(kind, {}).get(name)
    if mode:
        return _ROLES.get(mode)
    return _role_by_name(name) or (None if OTHER_KINDS.search(name) else "chat")


def by_role(items: Iterable[Mapping[str, Any]], kind: str = "openai") -> ModelIds:
    """The ids of these models by what they do, in their order; those that do something else are left out."""
    roles = [(str(item["id"]), role_of(item, kind)) for item in items]
    return ModelIds(*(tuple(name for name, role in roles if role == wanted) for wanted in ModelIds._fields))


_ROLES: Mapping[str, Role] = {
    "chat": "chat",
    "language": "chat",
    "code": "chat",
    "embedding": "embedding",
    "embeddings": "embedding",
    "audio_speech": "speech",
}


def _role_by_name(name: str) -> Role | None:
    """What is no chat by its name; None where the name does not tell."""
    if SPEECH.search(name):
        return "speech"
    return "embedding" if EMBEDDING.search(name) and "rerank" not in name.lower() else None


def _is_what_it_says(key: str, role: Role) -> bool:
    """Whether a listed model can be offered: not one that a user tuned, not a chat model that only hears or draws, no music."""
    if role == "speech":
        return "lyria" not in key
    return role == "embedding" or not (OTHER_KINDS.search(key) or EMBEDDING.search(key) or key.startswith("ft:"))
