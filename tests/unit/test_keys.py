"""The text of an API key: what can be told without a database."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from homeport.key_text import looks_like_key, make_key, parse_key

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_key_shows_its_id_and_hides_256_bits() -> None:
    prefix, key = make_key()
    assert re.fullmatch(r"hp_local_[0-9A-Za-z]{12}", prefix)
    assert re.fullmatch(re.escape(prefix) + r"_[0-9A-Za-z]{49}", key)
    assert 62**43 > 2**256


def test_two_keys_share_neither_id_nor_secret() -> None:
    (first_id, first), (second_id, second) = make_key(), make_key()
    assert first_id != second_id
    assert first.split("_")[-1] != second.split("_")[-1]


def test_parsing_gives_the_id_and_the_hash_of_the_secret_without_its_checksum() -> None:
    prefix, key = make_key()
    secret = key[len(prefix) + 1 : -6]
    assert parse_key(key) == (prefix, hashlib.sha256(secret.encode()).digest())


@given(position=st.integers(9, 69), replacement=st.sampled_from(ALPHABET))
def test_one_wrong_character_anywhere_is_noticed(position: int, replacement: str) -> None:
    _, key = make_key()
    position = min(position, len(key) - 1)
    if key[position] != replacement:
        assert parse_key(key[:position] + replacement + key[position + 1 :]) is None


@given(position=st.integers(9, 68))
def test_two_neighbours_exchanged_are_noticed(position: int) -> None:
    _, key = make_key()
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    if swapped != key:
        assert parse_key(swapped) is None


def test_a_key_that_was_cut_or_grew_is_noticed() -> None:
    _, key = make_key()
    for text in (key[:-1], key[1:], key + "0", key + "\n", " " + key, key.replace("_", "-"), key.upper(), ""):
        assert parse_key(text) is None


@given(st.text(max_size=80))
def test_any_other_text_is_no_key_and_never_an_error(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key("hp_local_" + text) is None


def test_only_what_begins_like_a_key_is_taken_for_one() -> None:
    assert looks_like_key(make_key()[1])
    assert looks_like_key("hp_local_cut")
    assert not looks_like_key("eyJhbGciOiJIUzI1NiJ9.e30.x")
    assert not looks_like_key("")
