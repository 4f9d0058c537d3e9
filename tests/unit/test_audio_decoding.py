"""Audio files of strangers: every format that is read, and what is refused."""

import io
import random
import struct
import threading

import numpy as np
import pytest

from adapters.audio.decoding import MAX_RATE, MIN_RATE, RATE, decode, decode_in_thread, sniff
from homeport.errors import InvalidRequest, PayloadTooLarge
from tests.sounds import make_file, make_wav, tone, values_of

DURATION_S = 0.5
# What a codec adds at the ends, and what resampling takes.
TOLERANCE_S = 0.03

COMPRESSED = [
    ("mp3", "libmp3lame", 44_100),
    ("mp3", "libmp3lame", 16_000),
    ("ogg", "vorbis", 44_100),
    ("ogg", "libopus", 48_000),
    ("flac", "flac", 44_100),
    ("flac", "flac", 192_000),
]


def loudest_pitch(values: np.ndarray) -> float:
    """In Hz."""
    return float(np.abs(np.fft.rfft(values)).argmax() * RATE / values.size)


def assert_is_the_tone(content: bytes, peak: float = 0.5) -> None:
    pcm = decode(content, max_s=10)
    values = values_of(pcm)
    assert pcm.rate == RATE
    assert pcm.duration_s == pytest.approx(DURATION_S, abs=TOLERANCE_S)
    assert loudest_pitch(values) == pytest.approx(440, abs=4)
    assert np.abs(values).max() == pytest.approx(peak, abs=0.06)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(("bits", "is_float"), [(8, False), (16, False), (24, False), (32, False), (32, True), (64, True)])
def test_wav_of_any_width_rate_and_number_of_channels_is_read(bits: int, is_float: bool, rate: int, channels: int) -> None:
    assert_is_the_tone(make_wav(tone(rate, DURATION_S, channels), rate, bits, is_float=is_float))


@pytest.mark.parametrize("channels", [9, 17, 32, 64])
def test_more_channels_than_have_names_are_mixed(channels: int) -> None:
    assert_is_the_tone(make_wav(tone(RATE, DURATION_S, channels), RATE, 16))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "codec", "rate"), COMPRESSED)
def test_compressed_files_are_read(container: str, codec: str, rate: int, channels: int) -> None:
    # FFmpeg's own encoder of Vorbis makes stereo only.
    channels = 2 if codec == "vorbis" else channels
    assert_is_the_tone(make_file(tone(rate, DURATION_S, channels), rate, container, codec))


def test_channels_are_mixed_and_not_dropped() -> None:
    both = tone(RATE, DURATION_S, 2)
    both[:, 0] = 0
    assert_is_the_tone(make_wav(both, RATE, 16), peak=0.25)


def test_numbers_beyond_the_full_level_are_cut_off_and_not_wrapped() -> None:
    values = values_of(decode(make_wav(np.full((RATE, 1), 3.0), RATE, 32, is_float=True), max_s=10))
    assert values.min() > 0.99


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_do_no_harm(value: float) -> None:
    assert decode(make_wav(np.full((RATE, 1), value), RATE, 32, is_float=True), max_s=10).duration_s == 1


def test_an_mp3_may_change_its_rate_and_channels_on_the_way() -> None:
    content = b"".join(make_file(tone(rate, 1.0, channels), rate, "mp3", "libmp3lame") for rate, channels in ((44_100, 2), (22_050, 1)))
    assert decode(content, max_s=10).duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("container", "codec", "rate"), [*COMPRESSED, ("wav", "pcm_s16le", RATE)])
def test_what_plays_too_long_is_refused_while_it_is_decoded(container: str, codec: str, rate: int) -> None:
    content = make_file(tone(rate, 3.0, 2), rate, container, codec)
    assert decode(content, max_s=3.5).duration_s == pytest.approx(3.0, abs=0.1)
    with pytest.raises(PayloadTooLarge, match="more than 2 s"):
        decode(content, max_s=2)


def test_a_small_file_cannot_play_for_hours() -> None:
    content = make_file(np.zeros((8_000 * 3_600, 1)), 8_000, "flac", "flac")
    assert len(content) < 700_000
    with pytest.raises(PayloadTooLarge):
        decode(content, max_s=1_800)


@pytest.mark.parametrize("rate", [1, MIN_RATE - 1, MAX_RATE + 1, 2**31 - 1, 2**32 - 1])
def test_rates_that_nobody_records_at_are_refused(rate: int) -> None:
    content = bytearray(make_wav(tone(RATE, 0.1), RATE, 16))
    content[24:28] = struct.pack("<I", rate)
    with pytest.raises(InvalidRequest):
        decode(bytes(content), max_s=10)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"RIFF",
        b"RIFF\xff\xff\xff\xffWAVE",
        b"OggS",
        b"fLaC",
        b"ID3",
        b"\xff\xfb",
        b"hello, this is a text",
        b"\x1a\x45\xdf\xa3 a film",
        b"\0\0\0\x20ftypM4A ",
        b"#EXTM3U\nhttp://127.0.0.1/playlist",
        b"ffconcat version 1.0\nfile /etc/passwd",
        make_wav(tone(RATE, 0.0), RATE, 16),
        make_wav(tone(RATE, 0.1), RATE, 16)[:44],
        b"RIFF\x24\0\0\0WAVE" + bytes(1000),
        b"OggS" + bytes(1000),
        b"fLaC" + b"\xff" * 1000,
        b"ID3" + b"\x7f" * 1000,
    ],
)
def test_what_is_no_audio_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^The audio .+\.$"):
        decode(content, max_s=10)


def test_a_wav_file_may_only_hold_plain_samples() -> None:
    content = bytearray(make_wav(tone(RATE, 0.1), RATE, 16))
    content[20:22] = struct.pack("<H", 0x55)  # says that MP3 is inside
    with pytest.raises(InvalidRequest):
        decode(bytes(content), max_s=10)


def test_pictures_in_a_file_are_not_looked_at() -> None:
    picture = b"\0image/png\0\x03\0\x89PNG\r\n\x1a\n" + b"\xff" * 200
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + frame
    assert_is_the_tone(tag + make_file(tone(44_100, DURATION_S), 44_100, "mp3", "libmp3lame"))


def test_the_name_and_the_type_of_a_file_do_not_matter() -> None:
    assert [sniff(make_file(tone(rate, 0.1, 2), rate, container, codec)) for container, codec, rate in COMPRESSED] == [
        container for container, _, _ in COMPRESSED
    ]


def mutants(content: bytes, count: int) -> list[bytes]:
    """Cut off, with bytes changed, taken out or put in; the same ones every time."""
    chance = random.Random(0)
    found = []
    for _ in range(count):
        mutant = bytearray(content[: chance.randrange(len(content)) if chance.random() < 0.3 else None])
        for _ in range(chance.choice((0, 1, 1, 3, 10, 100))):
            change(mutant, chance)
        found.append(bytes(mutant))
    return found


def change(mutant: bytearray, chance: random.Random) -> None:
    """Most of what can go wrong stands at the beginning."""
    if not mutant:
        return
    place = min(len(mutant) - 1, int(chance.expovariate(1 / 100)) if chance.random() < 0.7 else chance.randrange(len(mutant)))
    match chance.randrange(4):
        case 0:
            mutant[place] = chance.randrange(256)
        case 1:
            mutant[place] = chance.choice((0, 0x7F, 0x80, 0xFF))
        case 2:
            del mutant[place]
        case _:
            mutant.insert(place, chance.randrange(256))


@pytest.mark.parametrize(("container", "codec", "rate"), [*COMPRESSED, ("wav", "pcm_s16le", 44_100), ("wav", "pcm_f32le", 44_100)])
def test_damaged_files_are_read_as_far_as_they_go_or_refused(container: str, codec: str, rate: int) -> None:
    content = make_file(tone(rate, DURATION_S, 2), rate, container, codec)
    outcomes = set()
    for mutant in mutants(content, 60):
        try:
            outcomes.add(decode(mutant, max_s=60).rate)
        except (InvalidRequest, PayloadTooLarge) as error:
            outcomes.add(error.status)
    assert {RATE, 400} <= outcomes


def test_decoding_ends_where_nobody_waits_for_it() -> None:
    content = make_wav(tone(RATE, 60), RATE, 16)
    stop = threading.Event()
    stop.set()
    assert decode(content, max_s=100, stop=stop).duration_s < 1


@pytest.mark.anyio
async def test_files_are_decoded_in_threads() -> None:
    content = make_wav(tone(RATE, 1.0), RATE, 16)
    assert (await decode_in_thread(content, max_s=2)).duration_s == 1
    with pytest.raises(InvalidRequest):
        await decode_in_thread(b"", max_s=2)


def test_memory_is_given_back() -> None:
    import psutil

    content = make_file(tone(44_100, 5.0, 2), 44_100, "mp3", "libmp3lame")
    for _ in range(10):
        decode(content, max_s=60)
    before = psutil.Process().memory_info().rss
    for _ in range(100):
        decode(io.BytesIO(content).getvalue(), max_s=60)
    assert psutil.Process().memory_info().rss - before < 30_000_000
