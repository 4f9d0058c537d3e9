"""The recogniser that is always there: pocketsphinx, whose wheel carries its model. English only, no network, and many mistakes.

*What it takes.* A process of 120 MB while it is in use and for five minutes after, 0.5 s to start, then a fifth of the time that the
sound plays on one core. Long sound is cut at its silences; requests take turns, utterance by utterance, so that a short one does not wait
for a long one to end.
"""

import asyncio
import re
from collections.abc import Sequence
from importlib.util import find_spec

from adapters.audio.pcm import Pcm
from adapters.recognizers import RecognizerModel, Segment, Transcript
from adapters.recognizers.languages import check_language
from adapters.recognizers.searching import SearchProcess, Word
from adapters.recognizers.utterances import Utterance, cut

NAME = "pocketsphinx"
MODEL = RecognizerModel("en-us", "US English", "en")
# Silence, noises and the ends of a sentence, and which pronunciation of a word was heard.
_NO_WORD = re.compile(r"[<\[+]")
_PRONUNCIATION = re.compile(r"\(\d+\)$")


class PocketSphinx:
    """English with pocketsphinx."""

    name = NAME

    def __init__(self, process: SearchProcess | None = None) -> None:
        self.process = process or SearchProcess()

    def models(self) -> Sequence[RecognizerModel]:
        """The one that its wheel carries."""
        return (MODEL,)

    def find_problem(self) -> str | None:
        """Whether it is not installed."""
        if find_spec("pocketsphinx") is None:
            return "The recogniser pocketsphinx is not installed. Install it with `pip install pocketsphinx`."
        return None

    async def transcribe(self, audio: Pcm, *, model: str | None, language: str | None) -> Transcript:
        """Write down ``audio`` (16 kHz). Raises InvalidRequest for another language than English, Unavailable."""
        _check(language)
        utterances = await asyncio.to_thread(cut, audio)
        heard = [_segment(each, await self.process.search(each.samples), audio.duration_s) for each in utterances]
        segments = tuple(each for each in heard if each.text)
        return Transcript(" ".join(each.text for each in segments), "en", segments, NAME, MODEL.id, audio.duration_s)

    async def prepare(self, *, model: str | None, language: str | None) -> None:
        """Start its process. Raises InvalidRequest for another language than English, Unavailable."""
        _check(language)
        await self.process.start()

    async def close(self) -> None:
        """End its process."""
        await self.process.close()


def _check(language: str | None) -> None:
    check_language(
        language, ("en",), f"The recogniser {NAME}", "Others take a multilingual model of whisper: `homeport speech pull small`."
    )


def _segment(utterance: Utterance, found: Sequence[Word], duration_s: float) -> Segment:
    words = [(_PRONUNCIATION.sub("", word), start_s, end_s) for word, start_s, end_s in found if not _NO_WORD.match(word)]
    if not words:
        return Segment(0.0, 0.0, "")
    start_s, end_s = (min(duration_s, max(0.0, utterance.start_s + each)) for each in (words[0][1], words[-1][2]))
    return Segment(round(start_s, 3), round(end_s, 3), " ".join(word for word, _, _ in words))
