"""Sound cut at its silences and levelled, for pocketsphinx."""

import numpy as np
import pytest

from adapters.audio.pcm import Pcm
from adapters.recognizers.utterances import MARGIN_S, MAX_UTTERANCE_S, PEAK, Utterance, cut
from tests.sounds import Samples

RATE = 16_000
CHANCE = np.random.default_rng(1)


def silence(duration_s: float) -> Samples:
    return np.zeros(int(RATE * duration_s))


def noise(duration_s: float, level: float) -> Samples:
    return CHANCE.normal(0, level, int(RATE * duration_s))


def pcm(*parts: Samples) -> Pcm:
    return Pcm(np.concatenate(parts).clip(-1, 1 - 2**-15).__mul__(32768).astype("<i2").tobytes(), RATE)


def values(utterance: Utterance) -> Samples:
    return np.frombuffer(utterance.samples, "<i2").astype(float)


def span(utterance: Utterance) -> tuple[float, float]:
    """Where in the sound the utterance begins and ends, without what was put around it."""
    return utterance.start_s + MARGIN_S, utterance.start_s + len(utterance.samples) / 2 / RATE - MARGIN_S


@pytest.mark.parametrize("sound", [pcm(silence(0)), pcm(silence(3)), pcm(noise(3, 0.0005))])
def test_silence_has_no_utterances(sound: Pcm) -> None:
    assert cut(sound) == []


@pytest.mark.parametrize("level", [0.005, 0.05, 0.2])
def test_an_utterance_is_as_loud_as_the_recogniser_was_trained_with(level: float) -> None:
    [utterance] = cut(pcm(silence(1), noise(1, level), silence(1)))
    assert np.abs(values(utterance)).max() == pytest.approx(PEAK, rel=0.01)


def test_an_utterance_is_never_digitally_silent() -> None:
    [utterance] = cut(pcm(silence(1), noise(1, 0.1), silence(0.3), noise(1, 0.1), silence(1)))
    quiet = values(utterance).reshape(-1, 160).std(axis=1)
    assert quiet.min() > 1
    assert np.sort(quiet)[:10].max() < 20


def test_pauses_cut_and_what_is_left_of_them_is_short() -> None:
    found = cut(pcm(silence(2), noise(1, 0.1), silence(3), noise(2, 0.05), silence(2)))
    assert [span(each) for each in found] == [
        (pytest.approx(2 - MARGIN_S, abs=0.05), pytest.approx(3 + MARGIN_S, abs=0.05)),
        (pytest.approx(6 - MARGIN_S, abs=0.05), pytest.approx(8 + MARGIN_S, abs=0.05)),
    ]


def test_the_pauses_between_words_do_not_cut() -> None:
    words = [part for _ in range(5) for part in (noise(0.4, 0.1), silence(0.2))]
    assert len(cut(pcm(silence(1), *words, silence(1)))) == 1


def test_a_pause_in_a_noisy_room_is_found() -> None:
    sound = np.concatenate([silence(1), noise(1, 0.2), silence(2), noise(1, 0.2), silence(1)])
    assert len(cut(pcm(sound + noise(6, 0.004)))) == 2


def test_what_has_no_pauses_is_cut_where_it_is_quietest() -> None:
    parts = [part for _ in range(4) for part in (noise(11.8, 0.2), noise(0.2, 0.02))]
    found = cut(pcm(*parts))
    assert all(end - start <= MAX_UTTERANCE_S + 2 * MARGIN_S for start, end in map(span, found))
    starts = [span(each)[0] + MARGIN_S for each in found[1:]]
    assert starts == [pytest.approx(12 * number - 0.1, abs=0.15) for number in (1, 2, 3)]


def test_nothing_that_is_loud_is_left_out() -> None:
    found = cut(pcm(noise(100, 0.2)))
    assert all(end - start <= MAX_UTTERANCE_S + 2 * MARGIN_S + 0.1 for start, end in map(span, found))
    ends = [0.0, *(span(each)[1] for each in found)]
    assert all(span(each)[0] <= end for each, end in zip(found, ends, strict=False))
    assert ends[-1] == pytest.approx(100, abs=0.1)


def test_the_same_sound_gives_the_same_utterances() -> None:
    sound = pcm(silence(1), noise(1, 0.1), silence(1))
    assert cut(sound) == cut(sound)


@pytest.mark.parametrize("count", [1, 2, 319, 320, 321])
def test_a_moment_is_an_utterance_too(count: int) -> None:
    assert len(cut(Pcm(b"\0\x40" * count, RATE))) == 1
