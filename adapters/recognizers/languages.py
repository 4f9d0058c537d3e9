"""Languages as callers name them (``en``, ``en-US``, ``de_DE``) and as recognisers know them (``en``)."""

import re
from collections.abc import Collection

from homeport.errors import InvalidRequest

_TAG = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{1,8})*", re.IGNORECASE)
# What some people write for Cantonese and for Mandarin, which is what recognisers mean by Chinese.
_OTHER_NAMES = {"cmn": "zh", "nb": "no", "iw": "he", "fil": "tl"}


def read_language(language: str | None) -> str | None:
    """The language of a tag, without region and script; None for None. Raises InvalidRequest for what is no tag."""
    if not language:
        return None
    found = _TAG.fullmatch(language.strip())
    if found is None:
        raise InvalidRequest(
            f"'{language[:40]}' is no language. Write a code such as 'en' or 'de-AT', or leave it out.", code="INVALID_LANGUAGE"
        )
    code = found[1].lower()
    return _OTHER_NAMES.get(code, code)


def check_language(language: str | None, known: Collection[str], who: str, fix: str) -> None:
    """Raise InvalidRequest unless ``who`` knows the language."""
    code = read_language(language)
    if code is not None and code not in known:
        only = "English only" if tuple(known) == ("en",) else f"{len(known)} languages, and this is none of them"
        raise InvalidRequest(f"{who} does not know the language '{code}': it knows {only}. {fix}", code="INVALID_LANGUAGE")
