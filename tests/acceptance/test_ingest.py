"""Documents to vectors over the wire and on the command line, with the built-in model."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.commands import environment, homeport
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, Servers, eventually

GRANTS = ("vectors.read", "vectors.write", "llm.embed")
PATH = "/sdk/llm/vectors/ingest"
OPEN = ("queued", "running")


def call(server: Server, method: str, path: str, app_id: str, body: Any = None) -> httpx.Response:
    """Call an operation as an app."""
    headers = {"X-App-Id": app_id}
    return httpx.request(method, f"{server.url}{path}", headers=headers, json=body, timeout=PROCESS_TIMEOUT_S, trust_env=False)


def begin(server: Server, app_id: str, documents: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Have documents taken in; returns the job."""
    answer = call(server, "POST", PATH, app_id, {"documents": documents, "workspaceId": "notes", **options})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()["job"]
    return job


def look(server: Server, app_id: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job as it is now."""
    answer = call(server, "GET", f"{PATH}/{job['id']}", app_id)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["job"]
    return found


def ended(server: Server, app_id: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it has ended."""
    return eventually(lambda: look(server, app_id, job), lambda found: found["state"] not in OPEN, PROCESS_TIMEOUT_S)


def long_documents(number: int) -> list[dict[str, Any]]:
    """Documents that keep the model busy for some seconds."""
    return [{"id": f"{each}", "text": f"Subject {each} is told at length. " * 10} for each in range(number)]


def test_documents_are_taken_in_and_found_by_their_meaning(server: Server, admin: Admin) -> None:
    app_id = admin.register("Reader", granted=GRANTS)
    documents = [
        {"id": "garden.md", "text": "Beetroot likes sun.", "metadata": {"tags": ["garden"]}},
        {"text": "The bakery opens at seven in the morning.", "metadata": None, "id": None, "extra": 1},
    ]
    job = begin(server, app_id, documents, chunkSize=None, chunkOverlap=None, provider=None, model=None)
    assert (job["state"], job["done"], job["total"]) == ("queued", 0, 0)
    assert "result" not in job
    done = ended(server, app_id, job)
    assert done["state"] == "completed", done
    assert done["result"] == {"documents": 2, "chunks": 2, "embedded": 2, "deleted": 0, "provider": "native", "model": "all-MiniLM-L6-v2"}
    query = {"text": "When can I buy bread?", "topK": 1, "workspaceId": "notes"}
    (best,) = call(server, "POST", "/sdk/llm/vectors/query", app_id, query).json()["results"]
    assert best["metadata"]["text"] == "The bakery opens at seven in the morning."


def test_a_job_is_not_found_by_others_and_needs_permissions(server: Server, admin: Admin) -> None:
    app_id, other = admin.register("Reader", granted=GRANTS), admin.register("Other", granted=GRANTS)
    job = begin(server, app_id, [{"text": "Mine."}])
    for method in ("GET", "DELETE"):
        for path in (f"{PATH}/{job['id']}", f"{PATH}/nonsense"):
            answer = call(server, method, path, other)
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    only_write = admin.register("Writer", granted=("vectors.write",))
    answer = call(server, "POST", PATH, only_write, {"documents": [{"text": "a"}]})
    assert (answer.status_code, answer.json()["permission"]) == (403, "llm.embed")
    assert ended(server, app_id, job)["state"] == "completed"


def test_what_makes_no_sense_is_refused(server: Server, admin: Admin) -> None:
    app_id = admin.register("Reader", granted=GRANTS)
    for body in (
        {"documents": []},
        {"documents": [{"text": " "}]},
        {"documents": [{"text": "a\0b"}]},
        {"documents": [{"text": "a"}], "chunkSize": 10},
        {"documents": [{"text": "a"}], "chunkSize": 100, "chunkOverlap": 60},
        {"documents": [{"text": "a"}], "workspaceId": "a\nb"},
    ):
        answer = call(server, "POST", PATH, app_id, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), body


def test_a_running_job_is_cancelled(server: Server, admin: Admin) -> None:
    app_id = admin.register("Reader", granted=GRANTS)
    job = begin(server, app_id, long_documents(900))
    eventually(lambda: look(server, app_id, job), lambda found: found["done"] > 0, PROCESS_TIMEOUT_S)
    answer = call(server, "DELETE", f"{PATH}/{job['id']}", app_id)
    assert answer.status_code == 200
    cancelled = answer.json()["job"]
    assert cancelled["state"] == "cancelled"
    assert 0 < cancelled["done"] < cancelled["total"] == 900
    assert look(server, app_id, job) == cancelled == call(server, "DELETE", f"{PATH}/{job['id']}", app_id).json()["job"]


def test_a_job_goes_on_when_the_server_is_started_again(servers: Servers) -> None:
    first = servers.start("restarted")
    assert first.first_key is not None
    admin = Admin(first.url, first.first_key)
    with admin.http:
        app_id = admin.register("Reader", granted=GRANTS)
    job = begin(first, app_id, long_documents(200))
    eventually(lambda: look(first, app_id, job), lambda found: found["done"] > 0, PROCESS_TIMEOUT_S)
    assert first.stop() == 0
    second = servers.start("restarted")
    done = ended(second, app_id, job)
    assert (done["state"], done["done"], done["attempts"]) == ("completed", 200, 1)
    assert 0 < done["result"]["embedded"] < 200


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of notes."""
    folder = tmp_path / "notes"
    (folder / "town").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "garden.md").write_text("# Garden\n\nBeetroot likes sun. Water it twice a week.\n", encoding="utf-8")
    (folder / "town" / "bakery.txt").write_text("The bakery opens at seven in the morning.", encoding="utf-8")
    (folder / "page.html").write_text("<h1>Dentist</h1><p>The dentist is on Monday.</p>", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (folder / ".git" / "config").write_text("hidden", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cli_server(shared_servers: Servers) -> Server:
    """A server beside which the commands run."""
    return shared_servers.start("for the commands")


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the server's data."""
    return homeport(server.data_dir, "vectors", *arguments, HOMEPORT_OLLAMA_URL="off")


def run(server: Server, *arguments: str) -> str:
    """Run a command that must succeed; returns what it prints."""
    done = command(server, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def documents_of(server: Server, workspace: str, *options: str) -> set[str]:
    """The documents of a workspace."""
    found = json.loads(run(server, "search", "anything", "-w", workspace, "-k", "1000", "--json", *options))
    return {match["metadata"]["documentId"] for match in found}


def has_vectors(server: Server, workspace: str) -> bool:
    """Whether anything is in the first key's workspace; quicker than a command."""
    assert server.first_key is not None
    with Admin(server.url, server.first_key).http as http:
        answer = http.get("/sdk/llm/vectors/workspaces", timeout=PROCESS_TIMEOUT_S)
        return workspace in answer.json()["workspaces"]


def test_a_folder_is_taken_in_searched_and_followed(cli_server: Server, notes: Path) -> None:
    said = run(cli_server, "ingest", str(notes), "--workspace", "diary")
    assert "3 files in the workspace 'diary' of the API key 'first key': 3 chunks, 3 of them new or changed" in said
    assert "Skipped: 1 binary, 1 hidden." in said
    assert 'homeport vectors search "your question" --workspace diary' in said
    assert documents_of(cli_server, "diary") == {"garden.md", "town/bakery.txt", "page.html"}
    first_line = run(cli_server, "search", "When can I buy bread?", "-w", "diary", "-k", "1").splitlines()[1]
    assert first_line.split()[1:4] == ["town/bakery.txt", "The", "bakery"]

    # The key that was printed at the start sees the same over the wire.
    assert cli_server.first_key is not None
    with Admin(cli_server.url, cli_server.first_key).http as http:
        answer = http.post("/sdk/llm/vectors/query", json={"text": "teeth", "topK": 1, "workspaceId": "diary"}, timeout=PROCESS_TIMEOUT_S)
        assert answer.json()["results"][0]["metadata"]["text"] == "Dentist\n\n\n\nThe dentist is on Monday."

    assert "3 chunks, none of them new or changed." in run(cli_server, "ingest", str(notes), "--workspace", "diary")
    (notes / "page.html").unlink()
    (notes / "garden.md").write_text("Carrots like sand.", encoding="utf-8")
    said = run(cli_server, "ingest", str(notes), "--workspace", "diary")
    assert "2 chunks, 1 of them new or changed" in said
    assert "Removed 1 chunk" in said
    assert documents_of(cli_server, "diary") == {"garden.md", "town/bakery.txt"}

    (listed,) = [each for each in json.loads(run(cli_server, "list", "--json")) if each["workspace"] == "diary"]
    assert (listed["vectors"], listed["dimensions"], listed["embedding"]["model"]) == (2, 384, "all-MiniLM-L6-v2")
    assert "native/all-MiniLM-L6-v2" in run(cli_server, "list")
    assert "--yes" in command(cli_server, "delete", "--workspace", "diary").stderr
    assert "2 vectors" in run(cli_server, "delete", "--workspace", "diary", "--yes")
    assert "Nothing was found" in run(cli_server, "search", "bread", "-w", "diary")


def test_what_a_run_does_not_cover_stays(cli_server: Server, notes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.md").write_text("Dear all.", encoding="utf-8")
    run(cli_server, "ingest", str(notes), "-w", "kept")
    run(cli_server, "ingest", str(other), "-w", "kept")
    (notes / "page.html").unlink()
    (notes / "garden.md").unlink()
    # Neither a single file nor another folder nor a pattern says anything about the rest.
    run(cli_server, "ingest", str(other / "letter.md"), "-w", "kept")
    run(cli_server, "ingest", str(notes), "-w", "kept", "--glob", "*.txt")
    assert documents_of(cli_server, "kept") == {"garden.md", "page.html", "town/bakery.txt", "letter.md"}
    # A folder in which nothing is left is not believed.
    (notes / "town" / "bakery.txt").rename(tmp_path / "bakery.txt")
    refused = command(cli_server, "ingest", str(notes), "-w", "kept")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "There is no text file to take in" in refused.stderr
    assert len(documents_of(cli_server, "kept")) == 4


@pytest.mark.long
def test_the_vectors_belong_to_who_is_named(cli_server: Server, notes: Path) -> None:
    assert cli_server.first_key is not None
    admin = Admin(cli_server.url, cli_server.first_key)
    with admin.http:
        app_id = admin.register("Diary", slug="diary-app", granted=GRANTS)
        key = admin.create_key()
    assert "of the app 'diary-app'" in run(cli_server, "ingest", str(notes), "--app", "diary-app", "-w", "named")
    assert call(cli_server, "GET", "/sdk/llm/vectors/workspaces", app_id).json()["workspaces"] == ["named"]
    assert "named" not in run(cli_server, "list")
    said = run(cli_server, "ingest", str(notes / "garden.md"), "--key", key["prefix"], "-w", "named")
    assert "1 file in the workspace 'named' of the API key 'a test's own'" in said
    assert documents_of(cli_server, "named", "--key", key["id"]) == {"garden.md"}
    assert "homeport apps list" in command(cli_server, "list", "--app", "nobody").stderr
    assert "homeport keys list" in command(cli_server, "list", "--key", "nobody").stderr
    assert command(cli_server, "list", "--key", key["id"], "--app", "diary-app").returncode == 2


def test_another_model_and_sizes_that_make_no_sense_are_refused_in_a_sentence(cli_server: Server, notes: Path) -> None:
    run(cli_server, "ingest", str(notes), "-w", "fixed")
    refused = command(cli_server, "ingest", str(notes), "-w", "fixed", "--size", "10")
    assert "50 to 20000" in refused.stderr
    refused = command(cli_server, "ingest", str(notes), "-w", "fixed", "--provider", "nobody")
    assert "'nobody' is not configured" in refused.stderr
    assert refused.returncode == 1


@pytest.mark.long
def test_ctrl_c_stops_cleanly_and_a_second_run_goes_on(cli_server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for document in long_documents(300):
        (folder / f"{document['id']}.txt").write_text(document["text"], encoding="utf-8")
    # On a terminal, where the progress is shown.
    terminal, inner = pty.openpty()
    command_line = [sys.executable, "-m", "homeport", "vectors", "ingest", str(folder), "-w", "many"]
    with subprocess.Popen(
        command_line, env=environment(cli_server.data_dir, HOMEPORT_OLLAMA_URL="off", TERM="xterm"), stdout=subprocess.PIPE, stderr=inner
    ) as process:
        os.close(inner)
        shown = bytearray()
        begun = threading.Event()

        def read() -> None:
            try:
                while data := os.read(terminal, 4096):
                    shown.extend(data)
                    if b"Taking in" in shown:
                        begun.set()
            except OSError:  # the other end is closed
                return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert begun.wait(PROCESS_TIMEOUT_S)
            eventually(lambda: has_vectors(cli_server, "many"), bool, PROCESS_TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            assert process.wait(PROCESS_TIMEOUT_S) == 130
        finally:
            process.kill()
    reader.join(5)
    os.close(terminal)
    assert b"the same command goes on from there" in shown
    assert b"Traceback" not in shown
    before = len(documents_of(cli_server, "many"))
    assert 0 < before < 300
    assert f"300 chunks, {300 - before} of them new or changed" in run(cli_server, "ingest", str(folder), "-w", "many")
