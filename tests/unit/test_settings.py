"""Where settings come from, and what is said when they are wrong."""

from pathlib import Path

import pytest

from homeport.settings import Settings, SettingsError, load_settings


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load_settings()
    assert (settings.port, settings.database_url) == (Settings.model_fields["port"].default, None)


def test_ollama_is_not_looked_for_when_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().ollama_url == Settings.model_fields["ollama_url"].default
    monkeypatch.setenv("HOMEPORT_OLLAMA_URL", "")
    assert load_settings().ollama_url == Settings.model_fields["ollama_url"].default
    monkeypatch.setenv("HOMEPORT_OLLAMA_URL", "off")
    assert load_settings().ollama_url == ""
    assert load_settings(ollama_url="http://box:11434").ollama_url == "http://box:11434"


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_DATA_DIR", str(tmp_path))
    (tmp_path / "homeport.toml").write_text("port = 1111\nworkers = 2\n", encoding="utf-8")
    monkeypatch.setenv("HOMEPORT_PORT", "2222")
    assert (load_settings().port, load_settings().workers) == (2222, 2)
    assert load_settings(port=3333).port == 3333


def test_everything_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_PORTS", "1")
    monkeypatch.setenv("HOMEPORT_WORKERS", "none")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "HOMEPORT_PORTS: no such setting (did you mean HOMEPORT_PORT?)" in str(caught.value)
    assert "HOMEPORT_WORKERS: " in str(caught.value)


def test_private_hosts_are_names_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().private_hosts == ()
    monkeypatch.setenv("HOMEPORT_PRIVATE_HOSTS", "localhost, db.internal,10.0.0.0/8,[::1],fd00::/8")
    assert load_settings().private_hosts == ("localhost", "db.internal", "10.0.0.0/8", "[::1]", "fd00::/8")
    monkeypatch.setenv("HOMEPORT_PRIVATE_HOSTS", "localhost,10.0.0.0/33")
    with pytest.raises(SettingsError, match=r"HOMEPORT_PRIVATE_HOSTS: .*10\.0\.0\.0/33"):
        load_settings()


def test_a_secret_may_be_given_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("a secret\n", encoding="utf-8")
    monkeypatch.setenv("HOMEPORT_SECRET_KEY_FILE", str(tmp_path / "key"))
    settings = load_settings()
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "a secret"
    assert "a secret" not in repr(settings)
    monkeypatch.setenv("HOMEPORT_SECRET_KEY_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="HOMEPORT_SECRET_KEY_FILE: cannot read"):
        load_settings()


@pytest.mark.parametrize("name", ["HOMEPORT_CONTRACT_SECRET", "HOMEPORT_PREVIOUS_CONTRACT_SECRET"])
def test_an_empty_file_is_no_secret_with_which_everybody_could_sign(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("\n", encoding="utf-8")
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match=name):
        load_settings()
