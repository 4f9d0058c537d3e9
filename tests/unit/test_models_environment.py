"""Providers that the environment configures, and what is known of models without asking anybody."""

import subprocess
import sys
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from adapters.chat import Endpoint
from adapters.model_catalog import ModelIds, by_role, known_models, load_catalog, role_of
from homeport.errors import InvalidRequest
from homeport.models.environment import KNOWN_PROVIDERS, read_environment, recognize_provider
from homeport.models.providers import check_base_url, check_provider_name
from homeport.models.speech import speech_endpoint, traits_of


@pytest.mark.parametrize("known", KNOWN_PROVIDERS, ids=lambda known: known.name)
def test_each_known_provider_is_found_by_each_of_its_variables(known) -> None:  # type: ignore[no-untyped-def]
    for variable in known.key_variables:
        [found] = read_environment({variable: " sk-1 ", "OTHER": "x"})
        assert found.endpoint == Endpoint(known.name, known.kind, known.base_url, "sk-1")
        assert recognize_provider(found.endpoint) == known
    assert (known.base_url is not None) == (known.kind == "openai"), "only OpenAI's protocol is spoken directly"


def test_an_empty_environment_configures_nothing() -> None:
    assert read_environment({"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "  ", "PATH": "/bin"}) == []


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_an_address_alone_configures_a_local_server(variable: str) -> None:
    [found] = read_environment({variable: "http://127.0.0.1:8000/v1/"})
    assert found.endpoint == Endpoint("openai", "openai", "http://127.0.0.1:8000/v1", None)
    assert recognize_provider(found.endpoint) is None, "it is not OpenAI itself"


def test_a_wrong_address_is_told_in_the_log_and_configures_nothing() -> None:
    with capture_logs() as logs:
        assert read_environment({"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "ftp://models/"}) == []
    assert logs[0]["provider"] == "openai"
    assert "sk-1" not in repr(logs)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "models",
        "ftp://a/v1",
        "http://",
        "http://user:pw@a/v1",
        "https://user@a/v1",
        "http://a/v1?key=1",
        "http://a/#x",
        "http://a b/",
        "http://a:99999/",
        "http://[::1/",
    ],
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_base_url(url)


def test_an_address_loses_only_the_slash_at_its_end() -> None:
    assert check_base_url(" https://Models.example:8443/v1/ ") == "https://Models.example:8443/v1"
    assert check_base_url("http://[::1]:8000") == "http://[::1]:8000"


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-a", "a b", "a" * 64, "ünï", "native"])
def test_a_name_that_cannot_stand_before_a_slash_or_is_taken_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_provider_name(name)


def test_the_catalogue_is_there_and_knows_models_that_can_chat() -> None:
    catalog = load_catalog()
    assert len(catalog.models) > 50, "LiteLLM's list has moved: adapters.model_catalog.LIST_FILE"
    for kind in ("anthropic", "gemini", "cohere_chat", "openai", "together_ai"):
        models = known_models(kind).chat
        assert models
        assert not any(model.startswith(f"{kind}/") or "embed" in model for model in models)
    assert known_models("nobody") == ModelIds()


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "text-embedding-3-small"),
        ("gemini", "gemini-embedding-001"),
        ("cohere_chat", "embed-v4.0"),
        ("cohere", "embed-v4.0"),
        ("mistral", "mistral-embed"),
        ("voyage", "voyage-3-large"),
        ("fireworks_ai", "nomic-ai/nomic-embed-text-v1.5"),
    ],
)
def test_the_catalogue_knows_models_that_make_embeddings(kind: str, model: str) -> None:
    models = known_models(kind)
    assert model in models.embedding
    assert model not in models.chat


@pytest.mark.parametrize("known", [known for known in KNOWN_PROVIDERS if known.kind != "openai"], ids=lambda known: known.name)
def test_the_usual_model_of_a_provider_is_one_that_it_has(known) -> None:  # type: ignore[no-untyped-def]
    models = known_models(known.kind)
    assert known.default_model in models.chat or set(known.models) <= {*models.speech}
    assert known.default_embedding_model is None or known.default_embedding_model in models.embedding


@pytest.mark.parametrize("known", [known for known in KNOWN_PROVIDERS if known.default_speech_model], ids=lambda known: known.name)
def test_the_usual_model_that_speaks_is_in_the_catalogue(known) -> None:  # type: ignore[no-untyped-def]
    assert known.default_speech_model in known_models(known.speech_kind or known.catalog or known.name).speech


def test_what_is_known_of_the_voices_of_a_provider_is_found_by_its_address() -> None:
    [openai] = read_environment({"OPENAI_API_KEY": "sk-a"})
    assert traits_of(openai.endpoint).voices[:2] == ("alloy", "ash")
    assert traits_of(Endpoint("elevenlabs", "elevenlabs")).voices
    [mistral] = read_environment({"MISTRAL_API_KEY": "sk-a"})
    assert speech_endpoint(mistral.endpoint) == replace(mistral.endpoint, kind="mistral")
    own = Endpoint("openai", "openai", "http://127.0.0.1:8880/v1")
    assert traits_of(own).voices == ("alloy",), "another server under its name"
    assert speech_endpoint(own) == own


def test_reading_the_catalogue_does_not_import_litellm() -> None:
    program = "import sys, homeport.models, adapters.model_catalog as catalog; catalog.load_catalog(); print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("item", "role"),
    [
        ({"id": "gpt-4o-mini"}, "chat"),
        ({"id": "text-embedding-3-small"}, "embedding"),
        ({"id": "whisper-1"}, None),
        ({"id": "gpt-4o-mini-tts"}, "speech"),
        ({"id": "tts-1-hd"}, "speech"),
        ({"id": "kokoro"}, "speech"),
        ({"id": "canopylabs/orpheus-v1-english"}, "speech"),
        ({"id": "voxtral-mini-tts-latest", "capabilities": {"completion_chat": False}}, "speech"),
        ({"id": "gpt-image-1"}, None),
        ({"id": "llama3.2:latest"}, "chat"),
        ({"id": "qwen2.5-7b-instruct"}, "chat"),
        ({"id": "nomic-embed-text:latest"}, "embedding"),
        ({"id": "all-minilm"}, "embedding"),
        ({"id": "any", "type": "embedding"}, "embedding"),
        ({"id": "any", "type": "chat"}, "chat"),
        ({"id": "claude", "type": "model"}, "chat"),
        ({"id": "any", "type": "rerank"}, None),
        ({"id": "any", "capabilities": {"completion_chat": False}}, None),
        ({"id": "mistral-embed", "capabilities": {"completion_chat": False}}, "embedding"),
        ({"id": "BAAI/bge-m3"}, "embedding"),
        ({"id": "intfloat/multilingual-e5-large-instruct"}, "embedding"),
        ({"id": "BAAI/bge-reranker-v2-m3"}, None),
        ({"id": "qwen3-embedding:8b"}, "embedding"),
    ],
)
def test_models_are_told_apart_by_what_they_do(item: dict[str, object], role: str | None) -> None:
    assert role_of(item) == role


def test_a_list_of_models_is_sorted_by_what_they_do_and_keeps_its_order() -> None:
    names = ["llama3", "nomic-embed-text", "whisper-1", "tts-1", "qwen3", "bge-m3"]
    assert by_role({"id": name} for name in names) == ModelIds(("llama3", "qwen3"), ("nomic-embed-text", "bge-m3"), ("tts-1",))
