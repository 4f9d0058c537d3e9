"""Audio files made from samples, and pieces joined."""

import array
import io
import math
import wave

import pytest

from adapters.audio.encoded import EncodedAudio
from adapters.audio.files import MEDIA_TYPES, encode
from adapters.audio.pcm import Pcm
from homeport.errors import InvalidRequest, UpstreamError
from homeport.speech import joining
from homeport.speech.joining import SHORTEST_S, join


def tone(duration_s: float, rate: int = 22_050) -> Pcm:
    samples = array.array("h", (int(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(int(duration_s * rate))))
    return Pcm(samples.tobytes(), rate)


def read_wav(content: bytes) -> Pcm:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return Pcm(file.readframes(file.getnframes()), file.getframerate())


def duration_of(content: bytes) -> float:
    """How long a file plays, as FFmpeg decodes it."""
    import av

    with av.open(io.BytesIO(content)) as file:
        return sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 48_000])
def test_a_wav_file_holds_the_samples(rate: int) -> None:
    pcm = tone(0.5, rate)
    assert read_wav(encode(pcm, "wav")) == pcm


def test_a_wav_file_may_be_empty() -> None:
    assert read_wav(encode(Pcm(b"", 22_050), "wav")).samples == b""


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 48_000])
def test_an_mp3_file_plays_as_long_and_is_small(rate: int) -> None:
    pcm = tone(3.0, rate)
    content = encode(pcm, "mp3")
    assert duration_of(content) == pytest.approx(3.0, abs=0.2)
    assert len(content) == pytest.approx(64_000 / 8 * 3, rel=0.1)


def test_samples_are_joined_in_order() -> None:
    first, second = tone(0.2), tone(0.3)
    joined = join([first, Pcm(b"", 22_050), second], "wav")
    assert joined.media_type == "audio/wav"
    assert read_wav(joined.content).samples == first.samples + second.samples


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_silence_is_a_file_that_can_be_played(format: str) -> None:
    joined = join([Pcm(b"", 22_050)], format)  # type: ignore[arg-type]
    assert joined.media_type == MEDIA_TYPES[format]  # type: ignore[index]
    assert duration_of(joined.content) >= SHORTEST_S * 0.99


def test_a_file_from_a_service_stays_as_it_is() -> None:
    sent = EncodedAudio(b"whatever", "audio/wav")
    assert join([sent], "mp3") is sent


def test_mp3_files_from_a_service_are_put_one_after_another() -> None:
    parts = [EncodedAudio(encode(tone(1.0), "mp3"), "audio/mpeg") for _ in range(3)]
    joined = join(parts, "wav")
    assert joined.media_type == "audio/mpeg"
    assert duration_of(joined.content) == pytest.approx(3.0, abs=0.3)


def test_other_files_from_a_service_are_decoded_to_be_joined() -> None:
    parts = [EncodedAudio(encode(tone(1.0), "wav"), "audio/wav") for _ in range(3)]
    joined = join(parts, "wav")
    assert joined.media_type == "audio/wav"
    assert read_wav(joined.content).duration_s == pytest.approx(3.0, abs=0.05)


def test_what_would_play_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MAX_S", 0.5)
    with pytest.raises(InvalidRequest, match="more than an hour"):
        join([tone(0.3), tone(0.3)], "wav")


def test_a_file_from_a_service_that_is_no_sound_is_the_services_fault() -> None:
    parts = [EncodedAudio(b"nonsense", "audio/wav"), tone(0.1)]
    with pytest.raises(UpstreamError) as caught:
        join(parts, "wav")
    assert caught.value.code == "SPEECH_ERROR"
