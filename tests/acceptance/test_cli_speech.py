"""``homeport speech``: said into files and aloud, written down from files and from the microphone."""

import io
import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import environment, homeport
from tests.acceptance.servers import eventually
from tests.acceptance.test_cli_serve import PROCESS_TIMEOUT_S
from tests.sounds import wrong_words
from tests.virtual_microphone import NO_SOUND, VirtualMicrophone, virtual_microphone
from tests.whisper_fixture import SENTENCE as WHAT_WHISPER_HEARS
from tests.whisper_fixture import make_whisper_model

SENTENCE = "please open the door"
CLEARLY = ("--voice", "en-us+klatt4", "--speed", "1.14")


@pytest.fixture(scope="module")
def microphone() -> Iterator[VirtualMicrophone]:
    with virtual_microphone() as microphone:
        yield microphone


def run(data_dir: Path, *arguments: str, stdin: str = "", **settings: str) -> str:
    """Run a command that must succeed; returns what it prints."""
    ended = homeport(data_dir, "speech", *arguments, stdin=stdin, **(NO_SOUND | settings))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refusal(data_dir: Path, *arguments: str, status: int = 1) -> str:
    """Run a command that must fail, with a message and no traceback; there is no sound system."""
    ended = homeport(data_dir, "speech", *arguments, **NO_SOUND)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert "Traceback" not in ended.stderr
    assert "ALSA" not in ended.stderr
    return ended.stderr


def test_what_is_said_into_a_file_is_written_down_again(tmp_path: Path) -> None:
    for name in ("said.wav", "said.mp3"):
        said = run(tmp_path, "say", SENTENCE, *CLEARLY, "--out", str(tmp_path / name))
        assert "espeak" in said
        heard = json.loads(run(tmp_path, "transcribe", str(tmp_path / name), "--language", "en", "--json"))
        assert wrong_words(SENTENCE, heard["text"]) <= 1
        assert heard["provider"] == "pocketsphinx"
    assert wrong_words(SENTENCE, run(tmp_path, "transcribe", str(tmp_path / "said.wav"))) <= 1
    # No database was made for any of this.
    assert not (tmp_path / "postgres").exists()


def test_a_text_comes_from_standard_input_and_speed_makes_it_shorter(tmp_path: Path) -> None:
    lengths = []
    for speed in ("0.5", "2"):
        run(tmp_path, "say", "-", "--speed", speed, "--out", str(tmp_path / "out.wav"), stdin=f"{SENTENCE}. {SENTENCE}.")
        with wave.open(io.BytesIO((tmp_path / "out.wav").read_bytes())) as file:
            lengths.append(file.getnframes() / file.getframerate())
    assert lengths[0] > 2 * lengths[1]


def test_what_is_said_aloud_is_heard_through_the_microphone(tmp_path: Path, microphone: VirtualMicrophone) -> None:
    command = [sys.executable, "-m", "homeport", "speech", "listen", "--timeout", "60"]
    settings = environment(tmp_path, **microphone.environment)
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        try:
            eventually(microphone.recorders, timeout_s=PROCESS_TIMEOUT_S)
            assert homeport(tmp_path, "speech", "say", SENTENCE, *CLEARLY, **microphone.environment).returncode == 0
            heard, told = listening.communicate(timeout=PROCESS_TIMEOUT_S)
        finally:
            listening.kill()
    assert wrong_words(SENTENCE, heard) <= 1
    assert told == "Listening. Speak now.\n"


def test_silence_prints_nothing_but_a_remark(tmp_path: Path, microphone: VirtualMicrophone) -> None:
    ended = homeport(tmp_path, "speech", "listen", "--timeout", "0.5", **microphone.environment)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "Nothing was said" in ended.stderr


def test_without_a_sound_system_it_is_said_what_to_do(tmp_path: Path) -> None:
    assert "--out" in refusal(tmp_path, "say", SENTENCE)
    assert "No microphone can be used" in refusal(tmp_path, "listen")


def test_wrong_arguments_are_refused_in_a_sentence(tmp_path: Path) -> None:
    assert ".wav or .mp3" in refusal(tmp_path, "say", SENTENCE, "--out", str(tmp_path / "x.txt"), status=2)
    assert "cannot be written" in refusal(tmp_path, "say", SENTENCE, "--out", str(tmp_path / "nowhere" / "x.wav"))
    assert "no voice 'nobody'" in refusal(tmp_path, "say", SENTENCE, "--voice", "nobody")
    assert "nothing to speak" in refusal(tmp_path, "say", " ")
    (tmp_path / "noise.mp3").write_bytes(b"this is no sound")
    assert "no file that can be read" in refusal(tmp_path, "transcribe", str(tmp_path / "noise.mp3"))
    assert "tiny" in refusal(tmp_path, "pull", "no-such-model")


def test_voices_are_listed_by_provider_and_language(tmp_path: Path) -> None:
    every: list[dict[str, Any]] = json.loads(run(tmp_path, "voices", "--json"))
    assert all(set(each) == {"provider", "id", "name", "languages"} for each in every)
    german = json.loads(run(tmp_path, "voices", "--provider", "espeak", "--language", "de", "--json"))
    assert german
    assert all(each["provider"] == "espeak" and "de" in each["languages"] for each in german)
    assert german == [each for each in every if each in german]
    assert "German" in run(tmp_path, "voices", "--language", "de")
    assert "homeport speech engines" in run(tmp_path, "voices", "--provider", "espeak", "--language", "xx")


def test_voices_of_services_are_known_to_the_registry_of_models(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "voices", "--provider", "openai", "--json", OPENAI_API_KEY="sk-test", HOMEPORT_OLLAMA_URL="off"))
    assert {"provider": "openai", "id": "alloy", "name": "alloy", "languages": []} in found
    assert "openai" in refusal(tmp_path, "voices", "--provider", "nobody")


def test_engines_say_what_is_there_and_how_to_get_the_rest(tmp_path: Path, microphone: VirtualMicrophone) -> None:
    def found(**settings: str) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in json.loads(run(tmp_path, "engines", "--json", **settings))}

    before = found()
    assert (before["espeak"]["kind"], before["espeak"]["is_default"], before["espeak"]["problem"]) == ("voice", True, None)
    assert before["pocketsphinx"]["is_default"]
    assert "homeport speech pull" in before["whisper"]["problem"]
    assert "No microphone" in before["default"]["problem"]
    shown = run(tmp_path, "engines")
    assert "homeport speech pull small" in shown

    make_whisper_model(tmp_path / "speech" / "whisper" / "tiny.en")
    after = json.loads(homeport(tmp_path, "speech", "engines", "--json", **microphone.environment).stdout)
    by_name = {each["name"]: each for each in after}
    assert (by_name["whisper"]["is_default"], by_name["whisper"]["details"]) == (True, "tiny.en")
    assert by_name["default"] == {"kind": "microphone", "name": "default", "is_default": True, "details": "default", "problem": None}
    run(tmp_path, "say", SENTENCE, "--out", str(tmp_path / "said.wav"))
    assert run(tmp_path, "transcribe", str(tmp_path / "said.wav")).strip() == WHAT_WHISPER_HEARS
    # It is here, so nothing is fetched.
    assert "is here" in run(tmp_path, "pull", "tiny.en")


def test_the_doctor_tells_of_voice_recogniser_and_microphone(tmp_path: Path, microphone: VirtualMicrophone) -> None:
    def checks(**settings: str) -> dict[str, dict[str, str]]:
        return {each["name"]: each for each in json.loads(homeport(tmp_path / "none", "doctor", "--json", **settings).stdout)}

    deaf, hearing = checks(**NO_SOUND), checks(**microphone.environment)
    assert [hearing[name]["status"] for name in ("voice", "recogniser", "microphone")] == ["ok", "ok", "ok"]
    assert "eSpeak" in hearing["voice"]["found"]
    assert "homeport speech pull" in hearing["recogniser"]["advice"]
    assert deaf["microphone"]["status"] == "warn"
    assert deaf["microphone"]["advice"]
    assert not (tmp_path / "none").exists()
