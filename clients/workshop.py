"""Where the client of one language is made: its folder, and the commands that run there."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "clients"
TOOLS = ROOT / ".venv-clients" / "bin"
# Compilers take minutes on a busy machine.
COMMAND_LIMIT_S = 900.0


class CommandFailed(Exception):
    """A command failed, or took too long; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """``whole`` is the document with everything, ``document`` the one with what apps use. ``environment`` is that of each command."""

    language: str
    whole: Path
    document: Path
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where everything is generated and built."""
        return BUILD / self.language

    @property
    def source(self) -> Path:
        """What is written by hand for this language."""
        return ROOT / "clients" / self.language

    def begin(self, *kept: str) -> None:
        """Empty the folder, but for the names that are kept, and copy into it what is written by hand."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.source, self.folder, dirs_exist_ok=True)

    def run(self, *command: str | Path) -> str:
        """Run a command in the folder; returns what it printed. Raises CommandFailed."""
        shown = f"{self.language}: {Path(command[0]).name} {' '.join(str(part) for part in command[1:4])}"
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=self.folder,
                env=os.environ | {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*"} | self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{shown} …: not done within {COMMAND_LIMIT_S:.0f} s") from error
        if done.returncode:
            raise CommandFailed(f"{shown} … ended with status {done.returncode}:\n{done.stdout}")
        return done.stdout

    def openapi_generator(self, name: str, output: Path, *options: str, properties: str) -> None:
        """Have OpenAPI Generator make a client, whose methods are called as the operations are but for the surface: ``llm_create_chat``."""
        self.run(
            *("openapi-generator-cli", "generate", "--input-spec", self.document, "--generator-name", name, "--output", output),
            *("--remove-operation-id-prefix", "--additional-properties"),
            f"removeOperationIdPrefixDelimiter=.,removeOperationIdPrefixCount=1,hideGenerationTimestamp=true,{properties}",
            *("--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"),
            *options,
        )
