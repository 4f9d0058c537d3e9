"""``homeport speech``: speak, listen, and what does it. Needs no database, except for voices of services."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.saying import say_aloud, write_speech
from homeport.cli.speech_parts import list_engines, with_speech, with_voices
from homeport.cli.writing import Json, print_json, print_table, say

if TYPE_CHECKING:
    from adapters.voices import Voice
    from homeport.cli.speech_parts import SpeechParts
    from homeport.speech.recognition import Transcript
    from homeport.speech.speaking import Speaking

MAX_SHOWN_LANGUAGES = 6
STOPPED = 130  # what shells report of a program that was ended with Ctrl-C

app = typer.Typer(help="Speech: say a text, write down what is said, and what does it.", no_args_is_help=True)

VoiceProvider = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Who speaks: espeak, system, piper, or a service such as openai.")
]
Recogniser = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Who writes it down: whisper or pocketsphinx; the better one that is here.")
]
Model = Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="With which of its models.")]
Language = Annotated[str | None, typer.Option("--language", "-l", metavar="TAG", help="The language, such as en or de-at.")]


@app.command("say", epilog='homeport speech say "Das Essen ist fertig." --language de --out dinner.mp3')
def say_text(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there (.wav or .mp3) instead of playing it.")
    ] = None,
    voice: Annotated[str | None, typer.Option(metavar="NAME", help="The voice. All of them: homeport speech voices.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.5, max=2.0, help="How fast; 1 is usual.")] = None,
    language: Language = None,
    provider: VoiceProvider = None,
) -> None:
    """Say a text on the loudspeaker, or into a file."""
    if out is not None and out.suffix.lower() not in (".wav", ".mp3"):
        raise typer.BadParameter("the file's name must end in .wav or .mp3.", param_hint="--out")
    what = sys.stdin.read() if text == "-" else text
    options: dict[str, Any] = {"voice": voice, "speed": speed, "language": language, "provider": provider}
    if out is None:
        return with_voices(provider, lambda speaking: say_aloud(speaking, what, options))
    format = out.suffix.lower().removeprefix(".")
    write_speech(with_voices(provider, lambda speaking: speaking.speak(what, format=format, **options)), out)


@app.command(epilog="homeport speech voices --language pt")
def voices(provider: VoiceProvider = None, language: Language = None, json: Json = False) -> None:
    """List voices: all of this machine, or those of one provider."""

    async def work(speaking: "Speaking") -> "list[tuple[str, Voice]]":
        names = [provider] if provider else [each.id for each in await speaking.providers() if each.is_configured]
        return [(name, voice) for name in names for voice in await speaking.voices(name) if _speaks(voice, language)]

    found = with_voices(provider, work)
    if json:
        return print_json([{"provider": name, "id": each.id, "name": each.name, "languages": each.languages} for name, each in found])
    if not found:
        return say(f"There is no voice{f' for {language}' if language else ''}. All there is: homeport speech engines")
    print_table(["provider", "voice", "name", "languages"], [[name, each.id, each.name, _languages(each)] for name, each in found])


@app.command(epilog="homeport speech transcribe interview.ogg --language de")
def transcribe(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="A WAV, MP3, OGG or FLAC file.")],
    provider: Recogniser = None,
    model: Model = None,
    language: Language = None,
    json: Json = False,
) -> None:
    """Write down what is said in an audio file."""
    content = file.read_bytes()
    _tell(with_speech(lambda parts: parts.recognition.transcribe(content, provider=provider, model=model, language=language)), is_json=json)


@app.command(epilog="homeport speech listen --timeout 30")
def listen(
    timeout: Annotated[float, typer.Option(min=0.1, max=120, metavar="SECONDS", help="How long to listen at most.")] = 10.0,
    provider: Recogniser = None,
    model: Model = None,
    language: Language = None,
    json: Json = False,
) -> None:
    """Listen to the microphone until the speaker pauses, and write down what is said."""

    def tell() -> None:
        typer.echo("Listening. Speak now.", err=True)

    async def work(parts: "SpeechParts") -> "Transcript":
        milliseconds = round(timeout * 1000)
        return await parts.listening.listen(provider=provider, model=model, language=language, timeout_ms=milliseconds, on_open=tell)

    _tell(with_speech(work), is_json=json)


@app.command(epilog="homeport speech pull small")
def pull(
    model: Annotated[str, typer.Argument(help="tiny, base, small, medium or large-v3; all but the last also as tiny.en …: English only.")],
) -> None:
    """Fetch a model of whisper, which then writes down what is said. Small is a good one to begin with (0.5 GB)."""
    try:
        with_speech(lambda parts: _pull(parts, model))
    except KeyboardInterrupt:
        typer.echo("Stopped. Files that were complete stay; the same command goes on from there.", err=True)
        sys.exit(STOPPED)
    say(f"The model '{model}' is here. Try it: homeport speech listen")


@app.command()
def engines(json: Json = False) -> None:
    """List what speaks, what listens and whether there is a microphone; what is missing, and how to get it."""
    found = with_speech(list_engines)
    if json:
        return print_json(found)
    print_table(
        ["for", "name", "status", "details"],
        [[each.kind, each.name, "default" if each.is_default else _status(each.problem), each.problem or each.details] for each in found],
    )
    say("", "Services speak as well, once their key is there: homeport models add --help")


async def _pull(parts: "SpeechParts", model: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # On a terminal only: elsewhere nothing but the result is printed.
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(f"Fetching {model}", total=None)
        await parts.recognition.pull(model, lambda done, total: progress.update(task, completed=done, total=total))


def _tell(transcript: "Transcript", *, is_json: bool) -> None:
    if is_json:
        return print_json(transcript)
    if transcript.text:
        return say(transcript.text)
    typer.echo("Nothing was said, or nothing that could be understood.", err=True)


def _speaks(voice: "Voice", language: str | None) -> bool:
    tag = (language or "").strip().lower().replace("_", "-")
    return not tag or not voice.languages or any(f"{each}-".startswith(f"{tag}-") for each in voice.languages)


def _languages(voice: "Voice") -> str:
    more = len(voice.languages) - MAX_SHOWN_LANGUAGES
    return ", ".join(voice.languages[:MAX_SHOWN_LANGUAGES]) + (f" and {more} more" if more > 0 else "") or "any"


def _status(problem: str | None) -> str:
    return "ok" if problem is None else "missing"
