"""Texts cut into what is spoken at once: sentences, and parts of those that are too long."""

import re

from homeport.chunking import find_sentences, split_text

# Control characters are orders to some engines: eSpeak NG takes U+0001 for one to change speed, pitch or volume.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_DOUBLED = re.compile(r"(\[(?=\[)|\](?=\]))")


def clean(text: str) -> str:
    """The text as it is given to engines, with nothing in it that one would take for an order: it is spoken as it stands."""
    # Piper, and the voices of macOS, read what stands in doubled brackets as sounds or commands.
    return _DOUBLED.sub(r"\1 ", _CONTROLS.sub(" ", text))


def cut(text: str, size: int) -> list[str]:
    """The sentences of the text, in order, those longer than ``size`` characters in parts of at most so many."""
    sentences = (text[start:end] for start, end, _ in find_sentences(text))
    return [part.text for sentence in sentences for part in split_text(sentence, size=size, overlap=0)]


def pack(sentences: list[str], size: int) -> list[str]:
    """The same in as few pieces of at most ``size`` characters as their order allows."""
    pieces: list[str] = []
    for sentence in sentences:
        if pieces and len(pieces[-1]) + 1 + len(sentence) <= size:
            pieces[-1] += f" {sentence}"
        else:
            pieces.append(sentence)
    return pieces
