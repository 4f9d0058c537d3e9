"""Which voice is meant, on a list like that of eSpeak NG."""

import pytest

from adapters.voices import Voice
from homeport.errors import InvalidRequest
from homeport.speech.matching import choose_voice

VARIANTS = ("f3", "klatt4", "Mr serious")
VOICES = (
    Voice("en-us", "English (America)", ("en-us", "en"), ("gmw/en-US",), VARIANTS),
    Voice("cmn", "Chinese (Mandarin)", ("cmn", "zh-cmn", "zh"), ("sit/cmn",), VARIANTS),
    Voice("en-029", "English (Caribbean)", ("en-029", "en"), ("gmw/en-029",), VARIANTS),
    Voice("en", "English (Great Britain)", ("en-gb", "en"), ("gmw/en",), VARIANTS),
    Voice("en-gb-x-rp", "English (Received Pronunciation)", ("en-gb-x-rp", "en-gb", "en"), ("gmw/en-GB-x-rp",), VARIANTS),
    Voice("fr-be", "French (Belgium)", ("fr-be", "fr"), ("roa/fr-BE",), VARIANTS),
    Voice("fr", "French (France)", ("fr-fr", "fr"), ("roa/fr",), VARIANTS),
    Voice("chr", "Cherokee", ("chr-us-qaaa-x-west",), ("iro/chr",), VARIANTS),
    Voice("yue", "Chinese (Cantonese)", ("yue", "zh-yue", "zh"), ("sit/yue",), VARIANTS),
)
SERVICE = (Voice("alloy", "alloy"), Voice("nova", "nova"))


@pytest.mark.parametrize(
    ("voice", "id"),
    [
        (None, "en-us"),
        ("", "en-us"),
        (" ", "en-us"),
        ("default", "en-us"),
        ("Default", "en-us"),
        ("en-us", "en-us"),
        ("EN_us", "en-us"),
        ("en_US", "en-us"),
        ("gmw/en-US", "en-us"),
        ("English (America)", "en-us"),
        ("english (great britain)", "en"),
        ("en", "en"),
        ("en-gb", "en"),
        ("fr-fr", "fr"),
        ("fr", "fr"),
        ("zh", "cmn"),
        ("zh-yue", "yue"),
        ("en-us+f3", "en-us+f3"),
        ("en_US+F3", "en-us+f3"),
        ("fr-fr+mr serious", "fr+Mr serious"),
        ("gmw/en-US+klatt4", "en-us+klatt4"),
    ],
)
def test_a_voice_is_found_by_any_of_its_names(voice: str | None, id: str) -> None:
    assert choose_voice("espeak", VOICES, voice, None).id == id


@pytest.mark.parametrize(
    ("language", "id"),
    [
        ("en", "en-us"),
        ("EN_US", "en-us"),
        ("en-gb", "en"),
        ("en-au", "en-us"),
        ("en-GB-oxendict", "en"),
        ("fr", "fr"),
        ("fr_CA", "fr"),
        ("fr-be", "fr-be"),
        ("zh-Hant-TW", "cmn"),
        ("chr", "chr"),
    ],
)
def test_a_language_finds_the_voice_that_speaks_it_best(language: str, id: str) -> None:
    for voice in (None, "", "default"):
        assert choose_voice("espeak", VOICES, voice, language).id == id


def test_a_voice_and_a_language_may_agree() -> None:
    assert choose_voice("espeak", VOICES, "fr-be", "fr").id == "fr-be"
    assert choose_voice("espeak", VOICES, "en-us+f3", "en").id == "en-us+f3"


@pytest.mark.parametrize(
    ("voice", "language", "code", "words"),
    [
        ("en-us+f9", None, "INVALID_VOICE", "Did you mean 'en-us'"),
        ("frr", None, "INVALID_VOICE", "Did you mean 'fr'"),
        ("chinese (mandarine)", None, "INVALID_VOICE", "'Chinese (Mandarin)'"),
        ("+f3", None, "INVALID_VOICE", "has no voice '+f3'"),
        ("qqqqqq", None, "INVALID_VOICE", "The list of providers"),
        ("x" * 500, None, "INVALID_VOICE", "x" * 80 + "'"),
        ("fr", "en", "INVALID_VOICE", "does not speak 'en'"),
        (None, "tlh", "INVALID_LANGUAGE", "'espeak' does not speak 'tlh'"),
        (None, "enn", "INVALID_LANGUAGE", "Did you mean 'en'"),
        ("en-us", "-", "INVALID_LANGUAGE", "does not speak '-'"),
    ],
)
def test_nonsense_is_refused_with_what_is_near(voice: str | None, language: str | None, code: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose_voice("espeak", VOICES, voice, language)
    assert caught.value.code == code
    assert words in caught.value.message
    assert len(caught.value.message) < 300


def test_voices_without_languages_speak_any() -> None:
    assert choose_voice("openai", SERVICE, None, "tlh").id == "alloy"
    assert choose_voice("openai", SERVICE, "Nova", "en").id == "nova"
    with pytest.raises(InvalidRequest, match="has no voice 'new'"):
        choose_voice("openai", SERVICE, "new", None)


def test_a_service_may_have_voices_that_nobody_knows() -> None:
    assert choose_voice("openai", SERVICE, "new", None, takes_any=True).id == "new"
    assert choose_voice("openai", SERVICE, "NOVA", None, takes_any=True).id == "nova"
