"""Fetches a model of whisper: its files over HTTPS from the hub that publishes them, each whole or not at all.

They are gathered in a folder beside and moved into place together, the weights last, so that a model is never half there. After a failure
the files that were complete stay where they are gathered, and the next attempt fetches the others.
"""

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog

from adapters.postgres.locks import LockTimeoutError, exclusive
from adapters.recognizers.whisper_files import FETCHABLE, NEEDED, OPTIONAL, VOCABULARIES, WEIGHTS, is_complete, plain_name
from homeport.errors import AppError, Conflict, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

REPOSITORY = "Systran/faster-whisper-{name}"
# How long the hub may take to say what there is, and to begin with a file; between two pieces of one the library waits as long.
ANSWER_S = 10.0
PIECE_BYTES = 1024 * 1024

# Called with the bytes that have arrived, and with all that there are.
OnProgress = Callable[[int, int], None]

log = structlog.get_logger(__name__)


class PullStopped(Exception):
    """Nobody waits for the model any more."""


def pull(folder: Path, model: str, on_progress: OnProgress, *, endpoint: str | None = None, stop: threading.Event) -> None:
    """Make the model ``<folder>/<name>/`` unless it is there. ``endpoint``: another hub than the library's own. Blocks.

    Raises InvalidRequest for an unknown model, Conflict while somebody else fetches it, Unavailable when it cannot be fetched, with what
    to do instead, and PullStopped soon after ``stop`` is set.
    """
    name = check_name(model)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with exclusive(folder / f".{name}.lock", 0.0):
            if not is_complete(folder / name):
                part = folder / f".{name}.part"
                _gather(part, REPOSITORY.format(name=name), _Progress(on_progress, stop), endpoint)
                _move(part, folder / name)
    except LockTimeoutError as error:
        raise Conflict(f"The model '{name}' is being fetched already. Wait until that is done.") from error
    except (OSError, ValueError) as error:
        raise _cannot_fetch(name, folder / name, error) from error


def check_name(model: str) -> str:
    """The name of a model that can be fetched. Raises InvalidRequest (INVALID_MODEL)."""
    name = plain_name(model)
    if name not in FETCHABLE:
        raise InvalidRequest(f"'{model[:80]}' is no model that can be fetched. There are: {', '.join(FETCHABLE)}.", code="INVALID_MODEL")
    return name


@dataclass(slots=True)
class _Progress:
    """Counts what arrives. Called for the bar of a file, it gives the library itself."""

    on_progress: OnProgress
    stop: threading.Event
    total: int = 0
    done: int = 0

    def __call__(self, **_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: float | None) -> None:
        """So many bytes more have arrived; fewer than none when the library begins again. Raises PullStopped."""
        if self.stop.is_set():
            raise PullStopped
        self.done += int(count or 0)
        self.on_progress(min(self.done, self.total), self.total)


def _gather(part: Path, repository: str, progress: _Progress, endpoint: str | None) -> None:
    """Fetch what is missing in ``part``. Raises OSError or ValueError, as the library does, and PullStopped."""
    import httpx
    from huggingface_hub import HfApi, constants, hf_hub_download

    # Its other way to fetch has no time limits, and does not pass every proxy that plain HTTPS passes.
    constants.HF_HUB_DISABLE_XET = True
    constants.DOWNLOAD_CHUNK_SIZE = PIECE_BYTES
    try:
        found = HfApi(endpoint=endpoint, token=False).model_info(repository, files_metadata=True, timeout=ANSWER_S)
        files = [each for each in found.siblings or () if each.rfilename in (*NEEDED, *VOCABULARIES, *OPTIONAL)]
        options: dict[str, Any] = {"revision": found.sha, "local_dir": part, "endpoint": endpoint, "token": False, "etag_timeout": ANSWER_S}
        fetch = partial(hf_hub_download, repository, tqdm_class=progress, **options)
        progress.total = sum(each.size or 0 for each in files)
        for file in sorted(files, key=lambda each: each.size or 0):
            before = progress.done
            _check(Path(fetch(file.rfilename)), file)
            # What was here already, or in the library's own cache, has not been counted.
            progress.update(before + (file.size or 0) - progress.done)
    except httpx.HTTPError as error:
        raise OSError(str(error)) from error
    if not is_complete(part):
        raise OSError(f"there is no complete model in {repository}")


def _check(path: Path, file: "RepoSibling") -> None:
    """Compare a large file with its published hash; a damaged one is removed. Raises OSError."""
    if file.lfs is None:
        return
    with path.open("rb") as content:
        is_right = hashlib.file_digest(content, "sha256").hexdigest() == file.lfs.sha256
    if not is_right:
        path.unlink()
        raise OSError(f"{path.name} is not what was published")


def _move(part: Path, folder: Path) -> None:
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the library's notes
    folder.mkdir(exist_ok=True, mode=0o700)
    for file in sorted(part.iterdir(), key=lambda each: each.name == WEIGHTS):
        file.replace(folder / file.name)
    part.rmdir()


def _cannot_fetch(name: str, folder: Path, error: Exception) -> AppError:
    log.warning("a model cannot be fetched", model=name, reason=str(error))
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    reason = "there is no room for it on the disk" if is_full else "the hub cannot be reached, or broke off"
    return Unavailable(
        f"The model '{name}' cannot be fetched: {reason}. Try again; or fetch {', '.join(NEEDED)} and {' or '.join(VOCABULARIES)} of "
        f"'{REPOSITORY.format(name=name)}' elsewhere and put them into {folder}.",
        code="PROVIDER_UNAVAILABLE",
    )
