"""Languages as callers name them."""

import pytest

from adapters.recognizers.languages import check_language, read_language
from homeport.errors import InvalidRequest


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        (None, None),
        ("", None),
        ("en", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("en_GB", "en"),
        (" de ", "de"),
        ("zh-Hant-TW", "zh"),
        ("cmn-CN", "zh"),
        ("yue", "yue"),
        ("nb-NO", "no"),
    ],
)
def test_of_a_tag_the_language_is_read(tag: str | None, language: str | None) -> None:
    assert read_language(tag) == language


@pytest.mark.parametrize("tag", ["e", "english", "en US", "-", "12", "en-", "auto!", "e" * 40])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="is no language") as caught:
        read_language(tag)
    assert caught.value.code == "INVALID_LANGUAGE"


def test_a_language_that_is_not_known_is_refused_with_what_to_do() -> None:
    check_language(None, ("en",), "It", "Ask another.")
    check_language("en-AU", ("en",), "It", "Ask another.")
    with pytest.raises(InvalidRequest, match="It does not know the language 'de': it knows English only. Ask another."):
        check_language("de-AT", ("en",), "It", "Ask another.")
    with pytest.raises(InvalidRequest, match="it knows 2 languages, and this is none of them"):
        check_language("tlh", ("en", "de"), "It", "Ask another.")
