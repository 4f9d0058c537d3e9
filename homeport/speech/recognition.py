"""Speech recognition: which recogniser and which model listens, how much at once, and how models come here.

Whisper listens where one of its models is in ``<data_dir>/speech/whisper/``, pocketsphinx everywhere else.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.audio.decoding import decode_in_thread
from adapters.audio.pcm import Pcm
from adapters.recognizers import Recognizer, RecognizerModel, Transcript
from adapters.recognizers.languages import read_language
from adapters.recognizers.pocketsphinx import PocketSphinx
from adapters.recognizers.whisper import Whisper
from adapters.recognizers.whisper_files import FETCHABLE, plain_name
from adapters.recognizers.whisper_pull import OnProgress, pull
from homeport.errors import InvalidRequest, TooManyRequests, Unavailable
from homeport.settings import Settings

MAX_AUDIO_S = 30 * 60.0
# What is listened to or waits for it. The longest sound takes 58 MB as samples.
MAX_AT_ONCE = 8
MAX_DECODED_AT_ONCE = 2
RETRY_AFTER_S = 5
# What official clients name when they mean the recogniser that their host has anyway.
HOSTS_OWN = "native"

__all__ = ["OnProgress", "Recognition", "RecognitionProvider", "Transcript"]

_TITLES = {
    "whisper": (
        "Whisper",
        "Whisper on this machine, offline: good, and in about a hundred languages where the model is not one of English.",
    ),
    "pocketsphinx": (
        "PocketSphinx",
        "Works offline out of the box, in English; makes many mistakes. `homeport speech pull small` fetches something better.",
    ),
}


@dataclass(frozen=True, slots=True)
class RecognitionProvider:
    """A recogniser and its models, the one first that is used when none is named. ``problem``: why it cannot be used, and the fix."""

    id: str
    name: str
    description: str
    models: tuple[RecognizerModel, ...]
    problem: str | None


class Recognition:
    """Writes down what was said. ``hub``: where models are fetched from, unless it is where they are published."""

    def __init__(self, settings: Settings, *, hub: str | None = None) -> None:
        self._data_dir = settings.data_dir
        self._folder = settings.data_dir / "speech" / "whisper"
        self._hub = hub
        # In the order in which they are preferred.
        self._recognizers: tuple[Recognizer, ...] = (Whisper(self._folder), PocketSphinx())
        self._running = 0
        self._decoding = asyncio.Semaphore(MAX_DECODED_AT_ONCE)

    async def providers(self) -> list[RecognitionProvider]:
        """All recognisers, those that can be used first, and of them the default."""
        found = [_show(each) for each in self._recognizers]
        return sorted(found, key=lambda each: each.problem is not None)

    async def transcribe(
        self, content: bytes, *, provider: str | None = None, model: str | None = None, language: str | None = None
    ) -> Transcript:
        """What is said in an audio file: WAV, MP3, OGG or FLAC, of at most MAX_AUDIO_S. Whoever is cancelled stops the work.

        Raises InvalidRequest (VALIDATION_ERROR for no audio, INVALID_PROVIDER, INVALID_MODEL, INVALID_LANGUAGE), PayloadTooLarge for one
        that plays too long, TooManyRequests, Unavailable (PROVIDER_UNAVAILABLE) and UpstreamError (SPEECH_ERROR).
        """
        recognizer, name = self._choose(provider, model, language)
        with self._place():
            async with self._decoding:
                audio = await decode_in_thread(content, max_s=MAX_AUDIO_S)
            return await recognizer.transcribe(audio, model=name, language=language)

    async def transcribe_pcm(
        self, audio: Pcm, *, provider: str | None = None, model: str | None = None, language: str | None = None
    ) -> Transcript:
        """The same for samples at 16 kHz."""
        recognizer, name = self._choose(provider, model, language)
        with self._place():
            return await recognizer.transcribe(audio, model=name, language=language)

    async def prepare(self, *, provider: str | None = None, model: str | None = None, language: str | None = None) -> None:
        """Load what a transcription with the same choice will need, while there is nothing to transcribe yet. Raises what it would
        raise.
        """
        recognizer, name = self._choose(provider, model, language)
        await recognizer.prepare(model=name, language=language)

    async def pull(self, model: str, on_progress: OnProgress) -> None:
        """Fetch a model of whisper, unless it is here. ``on_progress`` is told the bytes that have come, and how many there are.

        Raises InvalidRequest (INVALID_MODEL), Conflict while it is being fetched already, and Unavailable, with what else can be done.
        Whoever is cancelled stops it; what is complete by then is not fetched again.
        """
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def tell(done: int, total: int) -> None:
            loop.call_soon_threadsafe(on_progress, done, total)

        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await asyncio.to_thread(pull, self._folder, model, tell, endpoint=self._hub, stop=stop)
        finally:
            stop.set()

    async def close(self) -> None:
        """End what runs and free the memory."""
        await asyncio.gather(*(each.close() for each in self._recognizers))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= MAX_AT_ONCE:
            message = f"Too much waits to be transcribed. Try again in {RETRY_AFTER_S} s."
            raise TooManyRequests(message, headers={"Retry-After": str(RETRY_AFTER_S)})
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _choose(self, provider: str | None, model: str | None, language: str | None) -> tuple[Recognizer, str]:
        """Who listens, and with which of its models."""
        named = (provider or "").strip().lower()
        if named == HOSTS_OWN:
            named = ""
        if not named and model and (prefix := model.partition("/")[0].lower()) in self._names():
            named, model = prefix, model.partition("/")[2]
        if named and named not in self._names():
            raise InvalidRequest(f"There is no recogniser '{named[:80]}'. There are: {', '.join(self._names())}.", code="INVALID_PROVIDER")
        usable = [each for each in self._recognizers if named in ("", each.name) and each.find_problem() is None]
        if model:
            return self._with_model(usable, named, model)
        if not usable:
            raise _unusable([each for each in self._recognizers if named in ("", each.name)])
        code = read_language(language)
        able = ((each, found.id) for each in usable for found in each.models() if code is None or found.language in (None, code))
        # When nobody knows the language, whoever is asked first says so.
        return next(able, (usable[0], usable[0].models()[0].id))

    def _with_model(self, usable: Sequence[Recognizer], named: str, model: str) -> tuple[Recognizer, str]:
        names = [(each, found.id) for each in usable for found in each.models()]
        for recognizer, name in names:
            if name in (model, plain_name(model)):
                return recognizer, name
        if named in ("", "whisper") and (name := plain_name(model)) in FETCHABLE:
            raise Unavailable(
                f"The model '{name}' of whisper is not here yet. Fetch it with `homeport speech pull {name}`.", code="PROVIDER_UNAVAILABLE"
            )
        if not usable:
            raise _unusable([each for each in self._recognizers if named in ("", each.name)])
        raise InvalidRequest(
            f"There is no model '{model[:80]}'. There are: {', '.join(name for _, name in names)}. "
            f"`homeport speech pull NAME` fetches more: {', '.join(FETCHABLE)}.",
            code="INVALID_MODEL",
        )

    def _names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self._recognizers)


def _show(recognizer: Recognizer) -> RecognitionProvider:
    name, description = _TITLES[recognizer.name]
    return RecognitionProvider(recognizer.name, name, description, tuple(recognizer.models()), recognizer.find_problem())


def _unusable(recognizers: Sequence[Recognizer]) -> Unavailable:
    return Unavailable(" ".join(each.find_problem() or "" for each in recognizers).strip(), code="PROVIDER_UNAVAILABLE")
