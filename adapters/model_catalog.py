"""What LiteLLM knows about models, read from the list that its package carries, without importing the package (3 s, 190 MB)."""

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import orjson

LIST_FILE = "model_prices_and_context_window_backup.json"

# Names of models that do something else, for those that the list does not know.
OTHER_KINDS = re.compile(
    r"embed|minilm|\bbge-|\bgte-|rerank|moderation|whisper|transcri|\btts|-tts|audio|realtime|dall-e|image|sora|veo-|imagen|"
    r"babbage-|davinci-|turbo-instruct|guard",
    re.IGNORECASE,
)


class Catalog(NamedTuple):
    """``chat_models``: by LiteLLM's provider name, ids without the provider's prefix. ``modes``: by id as OpenAI names it."""

    chat_models: Mapping[str, tuple[str, ...]]
    modes: Mapping[str, str]


@cache
def load_catalog() -> Catalog:
    """Read the list; takes some 30 ms the first time. Empty when the package carries none."""
    package = find_spec("litellm")
    path = Path(package.origin).with_name(LIST_FILE) if package and package.origin else None
    if path is None or not path.is_file():
        return Catalog({}, {})
    today = date.today().isoformat()
    chat_models: dict[str, dict[str, None]] = {}
    modes: dict[str, str] = {}
    for key, entry in orjson.loads(path.read_bytes()).items():
        provider, mode = entry.get("litellm_provider"), entry.get("mode")
        if provider == "openai" and isinstance(mode, str):
            modes[key] = mode
        is_retired = str(entry.get("deprecation_date") or "9999") < today
        if mode == "chat" and not is_retired and not OTHER_KINDS.search(key) and not key.startswith("ft:"):
            chat_models.setdefault(str(provider), {})[key.removeprefix(f"{provider}/")] = None
    return Catalog({provider: tuple(ids) for provider, ids in chat_models.items()}, modes)


def list_chat_models(kind: str) -> list[str]:
    """The models of a LiteLLM provider that can chat, not counting retired ones; empty when none are known."""
    return list(load_catalog().chat_models.get(kind, ()))


def is_chat_model(item: Mapping[str, Any]) -> bool:
    """Whether an entry of a provider's own list of models can chat, as far as the entry, the catalogue or its name tells."""
    capabilities = item.get("capabilities")
    if isinstance(capabilities, Mapping) and "completion_chat" in capabilities:  # Mistral
        return bool(capabilities["completion_chat"])
    if isinstance(item.get("type"), str) and item["type"] != "model":  # Together
        return item["type"] in {"chat", "language", "code"}
    mode = load_catalog().modes.get(str(item["id"]))
    return mode == "chat" if mode else not OTHER_KINDS.search(str(item["id"]))
