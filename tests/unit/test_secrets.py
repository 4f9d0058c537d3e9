"""Encryption at rest, and the key file."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from homeport.errors import Unavailable
from homeport.secrets import SecretBox, load_secret_key
from homeport.settings import Settings, SettingsError


def test_what_was_sealed_opens_with_the_same_key_and_context() -> None:
    key = os.urandom(32)
    sealed = SecretBox(key).seal("grüße", "user_tokens:1")
    assert SecretBox(key).open(sealed, "user_tokens:1") == "grüße"
    assert "grüße".encode() not in sealed


def test_sealing_twice_gives_different_bytes() -> None:
    box = SecretBox(os.urandom(32))
    assert box.seal("same", "c") != box.seal("same", "c")


def test_sealed_bytes_do_not_open_elsewhere_or_changed() -> None:
    box = SecretBox(os.urandom(32))
    sealed = box.seal("secret", "row 1")
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    attempts = [
        (box, sealed, "row 2"),
        (SecretBox(os.urandom(32)), sealed, "row 1"),
        (box, flipped, "row 1"),
        (box, b"\x02" + sealed[1:], "row 1"),
    ]
    attempts += [(box, sealed[:length], "row 1") for length in (0, 1, 5, 13, 20)]
    for opener, data, context in attempts:
        with pytest.raises(Unavailable, match="cannot be decrypted") as refused:
            opener.open(data, context)
        assert refused.value.code == "SECRET_UNREADABLE"


def test_a_key_of_the_wrong_length_makes_no_box() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SecretBox(os.urandom(16))


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    key = load_secret_key(settings)
    path = tmp_path / "new" / "secret.key"
    assert len(key) == 32
    assert load_secret_key(settings) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.key"]


def test_many_at_once_get_one_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_secret_key(settings), range(64)))
    assert len(keys) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_setting_wins_over_the_file(tmp_path: Path, encode) -> None:  # type: ignore[no-untyped-def]
    key = bytes([251, 255] * 16)
    assert load_secret_key(Settings(data_dir=tmp_path, secret_key=SecretStr(encode(key).decode()))) == key
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "complaint"), [("", "0 bytes"), ("c2hvcnQ=", "5 bytes"), ("not base64!", "not base64"), ("é", "not base64")]
)
def test_a_bad_key_file_is_named_and_not_replaced(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=complaint) as refused:
        load_secret_key(Settings(data_dir=tmp_path))
    assert str(path) in str(refused.value)
    assert path.read_text(encoding="utf-8") == text


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="HOMEPORT_SECRET_KEY: the secret key has 5 bytes"):
        load_secret_key(Settings(data_dir=tmp_path, secret_key=SecretStr("c2hvcnQ=")))
