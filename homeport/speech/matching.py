"""Which voice is meant: by its id, another of its names, or a language, whichever way that is written."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from adapters.voices import Voice
from homeport.errors import InvalidRequest

DEFAULT = "default"
SUGGESTIONS = 3
SHOWN_LENGTH = 80


def choose_voice(provider: str, voices: Sequence[Voice], voice: str | None, language: str | None, *, takes_any: bool = False) -> Voice:
    """The voice for a request; ``voices`` are the provider's, the default one first.

    Left out, empty or ``default``, it is the default voice, or the best for the language. With ``takes_any`` a voice that is not there is
    taken as it is named. Raises InvalidRequest (INVALID_VOICE, INVALID_LANGUAGE), naming what is near.
    """
    wanted, tag = (voice or "").strip(), _normal(language or "")
    able = _speaking(voices, tag) if tag else list(voices)
    if not able:
        tags = sorted({each for voice in voices for each in voice.languages})
        raise InvalidRequest(f"'{provider}' does not speak '{_shown(tag)}'.{_near(tag, tags)}", code="INVALID_LANGUAGE")
    if not wanted or wanted.casefold() == DEFAULT:
        return able[0]
    found = _find(able, wanted)
    if found is not None:
        return found
    if takes_any:
        return Voice(wanted, wanted)
    if _find(voices, wanted) is not None:
        raise InvalidRequest(f"The voice '{_shown(wanted)}' does not speak '{tag}'. Leave one of the two out.", code="INVALID_VOICE")
    names = [name for each in voices for name in (each.id, each.name, *each.languages)]
    raise InvalidRequest(f"'{provider}' has no voice '{_shown(wanted)}'.{_near(wanted, names)}", code="INVALID_VOICE")


def _find(voices: Sequence[Voice], wanted: str) -> Voice | None:
    """The voice that is called so: exactly, before a ``+`` and a variant, or by a language of its own."""
    name, plus, variant = wanted.partition("+")
    for called in (wanted, *([name] if plus else [])):
        for voice in _called(voices, _normal(called)):
            if called == wanted:
                return voice
            for each in voice.variants:
                if each.casefold() == variant.strip().casefold():
                    return replace(voice, id=f"{voice.id}+{each}")
    return None


def _called(voices: Sequence[Voice], name: str) -> Iterator[Voice]:
    """The voices of a name, those that bear it as their id first, those that only speak a language of that name last."""
    yield from (each for each in voices if _normal(each.id) == name)
    yield from (each for each in voices if name in map(_normal, (each.name, *each.aliases)))
    yield from _best_first((each for each in voices if name in each.languages), name)


def _speaking(voices: Sequence[Voice], tag: str) -> list[Voice]:
    """The voices for a language, the best first; a region that none has is left off (``en-au`` is spoken by those of ``en``)."""
    if not any(voice.languages for voice in voices):
        return list(voices)
    while tag:
        exact = [voice for voice in voices if tag in voice.languages or _normal(voice.id) == tag]
        if exact:
            ranked = _best_first(exact, tag)
            # The default voice is the one that people are used to, if it speaks this at all.
            return sorted(ranked, key=lambda voice: voice is not voices[0])
        if wider := [voice for voice in voices if any(each.startswith(f"{tag}-") for each in voice.languages)]:
            return sorted(wider, key=lambda voice: voice is not voices[0])
        tag = tag.rpartition("-")[0]
    return []


def _best_first(voices: Iterator[Voice] | Sequence[Voice], tag: str) -> list[Voice]:
    def rank(voice: Voice) -> tuple[bool, int]:
        place = voice.languages.index(tag) if tag in voice.languages else len(voice.languages)
        return _normal(voice.id) != tag, place

    return sorted(voices, key=rank)


def _normal(name: str) -> str:
    return name.strip().replace("_", "-").casefold()


def _shown(name: str) -> str:
    return name[:SHOWN_LENGTH]


def _near(wanted: str, names: Sequence[str]) -> str:
    by_normal = {_normal(name): name for name in names}
    near = difflib.get_close_matches(_normal(_shown(wanted)), by_normal, n=SUGGESTIONS)
    if near:
        return f" Did you mean {' or '.join(repr(by_normal[each]) for each in near)}?"
    return " The list of providers names what there is."
