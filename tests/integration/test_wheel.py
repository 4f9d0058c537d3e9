"""What a user installs: the wheel carries the contract, and runs from a folder that is not the checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import httpx
import pytest

import homeport

ROOT = Path(__file__).resolve().parents[2]
BUILD_S = 120


@dataclass(frozen=True)
class WheelEnvironment:
    """A virtual environment that holds the wheel, and an empty folder to run it from."""

    bin: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the empty folder; its standard output. Fails the test when it does."""
        return run([str(self.bin / program), *arguments], self.folder)


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command that must succeed, away from the checkout's own import path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    """Build with the backend that is installed here, so that nothing is fetched."""
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)],
        folder,
    )
    [built] = folder.glob("homeport-*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnvironment:
    """The wheel in a new environment, which finds its dependencies where this one has them (so that it takes seconds).

    The editable install of the checkout is not seen: the ``.pth`` file that stands for it counts only in the environment's own folder.
    """
    folder = tmp_path_factory.mktemp("environment")
    home = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(home)], folder)
    paths = {"base": str(home), "platbase": str(home)}
    own_packages, dependencies = Path(sysconfig.get_path("purelib", vars=paths)), sysconfig.get_path("purelib")
    (own_packages / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    python = Path(sysconfig.get_path("scripts", vars=paths)) / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)], folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return WheelEnvironment(bin=python.parent, folder=elsewhere)


def files_below(folder: str) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts}


def test_the_wheel_holds_the_program_and_its_contract_and_nothing_else(wheel: Path) -> None:
    expected = files_below("homeport") | files_below("adapters") | files_below("handlers")
    # What the document is made of; not the bundle of the last release, which only a checkout is compared with.
    contract = {name.removeprefix("openapi/") for name in files_below("openapi") if name.endswith(".yaml")}
    expected |= {f"homeport/_openapi/{name}" for name in contract}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {"homeport/_openapi/openapi.yaml", "homeport/migrations/script.py.mako", "adapters/minilm/graph.onnx"} <= names
    assert names == expected


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], tmp_path)
    [archive] = tmp_path.glob("homeport-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path / "source", filter="data")
    [source_folder] = (tmp_path / "source").iterdir()
    names = {each.name for each in source_folder.iterdir()}
    assert {"LICENSE", "Makefile", "README.md", "requirements.txt", "requirements-model.txt", "tests", "contract"} <= names
    rebuilt = build_wheel(source_folder, tmp_path)
    assert sorted(zipfile.ZipFile(rebuilt).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_needs_what_the_project_declares(wheel_environment: WheelEnvironment) -> None:
    code = "import importlib.metadata as m, json; d = m.distribution('homeport'); print(json.dumps([d.version, len(d.requires)]))"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert wheel_environment.run("python", "-c", code).strip() == f'["{homeport.__version__}", {len(requirements)}]'


def test_the_command_of_the_wheel_runs_from_another_folder(wheel_environment: WheelEnvironment) -> None:
    assert homeport.__version__ in wheel_environment.run("homeport", "--version")


def test_the_wheel_finds_its_own_contract_and_a_handler_for_every_operation(wheel_environment: WheelEnvironment) -> None:
    root = Path(wheel_environment.run("python", "-c", "from homeport.contract import loading; print(loading.CONTRACT_ROOT)").strip())
    assert root.parts[-2:] == ("homeport", "_openapi")
    assert root.is_relative_to(wheel_environment.bin.parent)
    assert "the contract holds" in wheel_environment.run("python", "-m", "homeport.contract", "check")


def test_the_wheel_brings_the_graph_of_the_embedding_model(wheel_environment: WheelEnvironment) -> None:
    code = "from adapters.minilm.runtime import GRAPH, Runtime; print(GRAPH, len(Runtime().embed([[101, 7592, 102]])[0]))"
    graph, dimensions = wheel_environment.run("python", "-c", code).splitlines()[-1].split(" ")
    assert Path(graph).is_relative_to(wheel_environment.bin.parent.parent)
    assert dimensions == "384"


def test_a_server_of_the_wheel_serves_its_contract_and_stops(wheel_environment: WheelEnvironment, scratch: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"HOMEPORT_DATA_DIR": str(scratch / "wheel"), "HOMEPORT_OLLAMA_URL": "off", "HOMEPORT_LOG_LEVEL": "warning"}
    command = [str(wheel_environment.bin / "homeport"), "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=wheel_environment.folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            assert server.poll() is None
            paths = httpx.get(f"{url}/openapi.json", timeout=BUILD_S, trust_env=False).json()["paths"]
            assert "/sdk/ping" in paths
        finally:
            server.terminate()
            server.wait(timeout=BUILD_S)
        # Not communicate(): it reads past what readline() has buffered, which may be all of it.
        assert "Stop with Ctrl-C." in server.stdout.read()
    assert server.returncode == 0
