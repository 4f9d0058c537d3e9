"""Texts cut into what is spoken at once, and how much of it at once."""

import pytest

from homeport.errors import TooManyRequests
from homeport.speech.cutting import clean, cut, pack
from homeport.speech.places import MAX_CHARACTERS, MAX_REQUESTS, Places


def test_a_text_is_cut_at_the_ends_of_sentences() -> None:
    text = 'Dr. Smith paid 3.50 for it. "Really?" she asked!  Yes…\n\nA heading\n\n你好。再见！'  # noqa: RUF001 - the marks that are meant
    assert cut(text, 300) == ["Dr. Smith paid 3.50 for it.", '"Really?"', "she asked!", "Yes…", "A heading", "你好。", "再见！"]  # noqa: RUF001


def test_a_long_sentence_is_cut_at_a_blank_and_one_without_blanks_anywhere() -> None:
    words = cut("word " * 200, 300)
    assert all(len(piece) <= 300 and not piece.startswith(" ") for piece in words)
    assert " ".join(words).split() == ["word"] * 200
    assert [len(piece) for piece in cut("x" * 650, 300)] == [300, 300, 50]


def test_nothing_is_lost_but_blanks() -> None:
    text = "One. Two, three and four! " * 40 + "y" * 700 + ". End"
    assert "".join("".join(cut(text, 300)).split()) == "".join(text.split())


def test_a_blank_text_has_no_pieces() -> None:
    assert cut(" \n\t ", 300) == []


@pytest.mark.parametrize("text", ["a. " * 3333, ". " * 5000, "." * 10_000, "x" * 10_000, "\n" * 10_000, "no. 1. " * 1400])
def test_no_piece_of_the_oddest_text_is_too_long(text: str) -> None:
    pieces = cut(text, 300)
    assert all(0 < len(piece) <= 300 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_sentences_are_packed_into_as_few_pieces_as_their_order_allows() -> None:
    assert pack(["aaaa", "bbbb", "cccccccccc", "d"], 10) == ["aaaa bbbb", "cccccccccc", "d"]
    assert pack([""], 10) == [""]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("a\x00b\x01+50Sc\x1b\x7f\x85d", "a b +50Sc   d"),
        ("line\nline\ttab\r\n", "line\nline\ttab \n"),
        ("[[h@l'oU]] [[[x]]]", "[ [h@l'oU] ] [ [ [x] ] ]"),
        ("<speak>a & b</speak>", "<speak>a & b</speak>"),
        ("half \ud83d of one", "half   of one"),
        ("größer 🦜", "größer 🦜"),
    ],
)
def test_nothing_in_a_text_is_an_order(text: str, spoken: str) -> None:
    assert clean(text) == spoken


def test_places_are_bounded_by_requests_and_by_characters() -> None:
    places = Places()
    taken = [places.take(1) for _ in range(MAX_REQUESTS)]
    with pytest.raises(TooManyRequests) as caught:
        places.take(1)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == ("RATE_LIMIT", "5")
    for place in taken:
        place.leave()
        place.leave()

    long = places.take(MAX_CHARACTERS)
    with pytest.raises(TooManyRequests):
        places.take(1)
    long.have_sent(MAX_CHARACTERS - 10)
    other = places.take(MAX_CHARACTERS - 10)
    long.leave()
    long.have_sent(5)
    other.leave()
    assert places.take(MAX_CHARACTERS)


def test_a_text_that_is_longer_than_all_places_is_taken_when_nothing_else_is_spoken() -> None:
    assert Places().take(2 * MAX_CHARACTERS)
