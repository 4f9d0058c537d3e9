"""Speech by models: which voices providers are known to have, and what else differs between them.

No provider tells its voices in a way that others do, so these are lists. A voice that is in none of them is passed on as it is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from adapters.chat import Endpoint
from homeport.models.environment import KNOWN_PROVIDERS, KnownProvider, catalog_name, recognize_provider
from homeport.models.providers import ConfiguredProvider

USUAL_VOICE = "alloy"  # what servers that speak OpenAI's protocol know, whatever their voices are
GEMINI_VOICES = (
    "Kore Zephyr Puck Charon Fenrir Leda Orus Aoede Callirrhoe Autonoe Enceladus Iapetus Umbriel Algieba Despina Erinome Algenib "
    "Rasalgethi Laomedeia Achernar Alnilam Schedar Gacrux Pulcherrima Achird Zubenelgenubi Vindemiatrix Sadachbia Sadaltager Sulafat"
)


@dataclass(frozen=True, slots=True)
class SpeechTraits:
    """How a provider speaks: its voices, the usual one first, the most characters in a request, whether it can be faster or slower."""

    title: str = ""
    voices: tuple[str, ...] = (USUAL_VOICE,)
    max_characters: int = 2000
    has_speed: bool = True


@dataclass(frozen=True, slots=True)
class Speaker:
    """A provider that speaks, with the models that are known of it. ``problem`` says why it cannot, and what to do about it."""

    name: str
    traits: SpeechTraits
    models: tuple[str, ...] = ()
    problem: str | None = None


OPENAI = ("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse")
GEMINI = SpeechTraits("Google Gemini", tuple(GEMINI_VOICES.split()), has_speed=False)
# By LiteLLM's name of the provider. LiteLLM knows the voices of ElevenLabs and Mistral by these names.
TRAITS: Mapping[str, SpeechTraits] = {
    "openai": SpeechTraits("OpenAI", OPENAI),
    "azure": SpeechTraits("Azure OpenAI", OPENAI),
    "groq": SpeechTraits("Groq", ("autumn", "diana", "hannah", "austin", "daniel", "troy"), max_characters=200),
    "gemini": GEMINI,
    "vertex_ai": GEMINI,
    "elevenlabs": SpeechTraits("ElevenLabs", ("alloy", "amber", "ash", "august", "blue", "coral", "lily", "onyx", "sage", "verse")),
    "mistral": SpeechTraits("Mistral", ("alloy", "echo", "fable", "nova", "onyx", "shimmer"), has_speed=False),
}
UNKNOWN = SpeechTraits()


def traits_of(endpoint: Endpoint) -> SpeechTraits:
    """How the provider at an endpoint speaks, as far as that is known."""
    return TRAITS.get(catalog_name(endpoint) or "", UNKNOWN)


def speaker_of(provider: ConfiguredProvider, models: Sequence[str] = ()) -> Speaker:
    """A provider as one that speaks."""
    endpoint = provider.endpoint
    problem = provider.problem.message if provider.problem else None
    if problem is None and endpoint.api_key is None and (known := recognize_provider(endpoint)):
        problem = _how_to_add(known)
    return Speaker(endpoint.provider, traits_of(endpoint), tuple(models), problem)


def missing_speakers(names: Collection[str]) -> list[Speaker]:
    """The well-known providers that speak and are not among ``names``, and how to have them."""
    missing = [known for known in KNOWN_PROVIDERS if known.default_speech_model and known.name not in names]
    return [
        Speaker(known.name, traits_of(Endpoint(known.name, known.kind, known.base_url)), problem=_how_to_add(known)) for known in missing
    ]


def speech_endpoint(endpoint: Endpoint) -> Endpoint:
    """Where an endpoint's provider speaks: the same, perhaps by another protocol."""
    known = recognize_provider(endpoint)
    return replace(endpoint, kind=known.speech_kind) if known and known.speech_kind else endpoint


def _how_to_add(known: KnownProvider) -> str:
    return f"It needs an API key. Set {known.key_variables[0]} for this server, or run `homeport models add {known.name}`."
