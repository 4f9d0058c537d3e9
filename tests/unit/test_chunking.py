"""Texts cut into chunks: nothing is lost, nothing is too long, and it ends."""

# ruff: noqa: RUF001 - the characters that look like others are meant

import random
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.chunking import Chunk, check_sizes, find_sentences, split_chunk, split_text
from homeport.errors import InvalidRequest

# What the rules turn on, so that drawn texts meet them often.
BITS = st.sampled_from(
    [
        *"aB1 \n\t.!?…。！？\"'”’)]」",
        "\n\n",
        "\r\n\r\n",
        "...",
        "Mr.",
        " e.g. ",
        "\n1. ",
        "word ",
        "3.14",
        "x" * 60,
        " " * 30,
        "\u3000",
        "😀",
    ]
)
TEXTS = st.one_of(st.text(max_size=400), st.lists(BITS, max_size=300).map("".join))
SIZES = st.integers(1, 120).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


@given(TEXTS, SIZES)
@settings(max_examples=400)
def test_every_character_but_blanks_is_in_a_chunk_of_the_right_size_and_place(text: str, sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    chunks = split_text(text, size=size, overlap=overlap)
    covered = [False] * len(text)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert 1 <= len(chunk.text) <= size
        assert chunk.text == chunk.text.strip()
        covered[chunk.start : chunk.end] = [True] * len(chunk.text)
    assert all(is_covered or character.isspace() for character, is_covered in zip(text, covered, strict=True))
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        assert before.end - after.start <= overlap


@given(TEXTS, SIZES)
def test_without_overlap_no_character_is_in_two_chunks(text: str, sizes: tuple[int, int]) -> None:
    chunks = split_text(text, size=sizes[0], overlap=0)
    assert sum(len(chunk.text) for chunk in chunks) <= len(text)
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())


@given(TEXTS, st.integers(1, 60))
def test_a_chunk_can_be_split_further_in_its_place(text: str, size: int) -> None:
    for chunk in split_text(text, size=100, overlap=20):
        parts = split_chunk(chunk, size)
        assert all(part.text == text[part.start : part.end] and len(part.text) <= size for part in parts)
        assert "".join("".join(part.text for part in parts).split()) == "".join(chunk.text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Mr. Smith met Dr. Jones. They left.", ["Mr. Smith met Dr. Jones.", "They left."]),
        ("Fruit, e.g. apples, i.e. food. Done.", ["Fruit, e.g. apples, i.e. food.", "Done."]),
        ("J. R. R. Tolkien wrote. We read.", ["J. R. R. Tolkien wrote.", "We read."]),
        ("It costs 3.14 or v1.2.3 here. Yes.", ["It costs 3.14 or v1.2.3 here.", "Yes."]),
        ('"Really?" he asked. (Yes.) And then...', ['"Really?"', "he asked.", "(Yes.)", "And then..."]),
        ("“Nein.” Er ging. »Gut.« Ende", ["“Nein.”", "Er ging.", "»Gut.«", "Ende"]),
        ("你好。世界！「好？」再见", ["你好。", "世界！", "「好？」", "再见"]),
        ("1. First thing. Really.", ["1. First thing.", "Really."]),
        ("Das gilt z. B. hier, bzw. dort. Ja.", ["Das gilt z. B. hier, bzw. dort.", "Ja."]),
        ("No end", ["No end"]),
        ("What?!) Yes", ["What?!)", "Yes"]),
        ("See example.com/a.b?c=d now. Ok.", ["See example.com/a.b?c=d now.", "Ok."]),
    ],
)
def test_a_sentence_ends_where_a_reader_would_say(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end, _ in find_sentences(text)] == expected


def test_a_paragraph_ends_a_sentence_and_is_told() -> None:
    text = "# A title\n\nFirst. Second\n  \n\nThird.\r\n\r\nA line\nand another."
    found = [(text[start:end], is_last) for start, end, is_last in find_sentences(text)]
    assert found == [
        ("# A title", True),
        ("First.", False),
        ("Second", True),
        ("Third.", True),
        ("A line\nand another.", True),
    ]


def test_a_chunk_ends_with_a_sentence_and_repeats_whole_sentences() -> None:
    text = "Aaaa aaaa aaaa. Bbbb bbbb. Cccc cccc. Dddd dddd dddd dddd. Eeee."
    assert [chunk.text for chunk in split_text(text, size=40, overlap=12)] == [
        "Aaaa aaaa aaaa. Bbbb bbbb. Cccc cccc.",
        "Cccc cccc. Dddd dddd dddd dddd. Eeee.",
    ]


def test_a_chunk_ends_with_a_paragraph_where_one_ends_in_its_second_half() -> None:
    text = "One two three four.\n\nFive six. Seven eight nine ten eleven twelve."
    assert [chunk.text for chunk in split_text(text, size=32, overlap=0)] == [
        "One two three four.",
        "Five six.",
        "Seven eight nine ten eleven",
        "twelve.",
    ]


def test_where_no_sentence_is_short_enough_words_are_repeated() -> None:
    text = "Alpha beta gamma delta epsilon. Zeta eta theta."
    assert [chunk.text for chunk in split_text(text, size=36, overlap=15)] == [
        "Alpha beta gamma delta epsilon.",
        "delta epsilon. Zeta eta theta.",
    ]


def test_a_long_sentence_is_cut_at_a_line_or_a_blank_and_only_a_long_word_inside() -> None:
    assert [chunk.text for chunk in split_text("def f():\n    return 1\n    # more", size=24, overlap=0)] == [
        "def f():\n    return 1",
        "# more",
    ]
    assert [chunk.text for chunk in split_text("aaa bbb ccc ddd", size=8, overlap=0)] == ["aaa bbb", "ccc ddd"]
    assert [chunk.text for chunk in split_text("abcdefghij", size=4, overlap=0)] == ["abcd", "efgh", "ij"]


def test_a_blank_text_has_no_chunks_and_a_short_one_has_itself() -> None:
    assert split_text(" \n\n\t ") == []
    assert split_text("  Hello. ") == [Chunk("Hello.", 2, 8)]


@pytest.mark.parametrize(("size", "overlap"), [(49, 0), (20_001, 0), (1000, -1), (1000, 501)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidRequest, match=str(overlap if 50 <= size <= 20_000 else size)):
        check_sizes(size, overlap)


def test_sizes_that_make_sense_pass() -> None:
    check_sizes(50, 25)
    check_sizes(20_000, 0)


def hostile(length: int) -> dict[str, str]:
    """Texts that would be slow if anything were looked at more than a few times."""
    drawn = random.Random(7)
    return {
        "words": "word " * (length // 5),
        "stops": "." * length + "x",
        "stops and quotes": '."' * (length // 2),
        "closing quotes": "." + '"' * length + "x",
        "lines": "\n" * length,
        "blank lines": ("\n" + " " * 50) * (length // 51),
        "one word": "x" * length,
        "blanks": "a" + " " * length + "b",
        "sentences": "Hello there, it is me. " * (length // 23),
        "paragraphs": "Hi.\n\n" * (length // 5),
        "initials": "A. " * (length // 3),
        "chinese": "好。" * (length // 2),
        "anything": "".join(drawn.choices("ab .!?\n\"'。x1", k=length)),
    }


@pytest.mark.parametrize("name", hostile(10))
def test_a_long_text_that_is_meant_to_be_slow_is_cut_all_the_same(name: str) -> None:
    text = hostile(200_000)[name]
    chunks: list[Chunk] = []
    # In linear time this is done in seconds at most, in quadratic time not within hours: the bound only keeps the run from hanging.
    cutting = threading.Thread(target=lambda: chunks.extend(split_text(text, size=500, overlap=250)), daemon=True)
    cutting.start()
    cutting.join(120)
    assert not cutting.is_alive()
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
