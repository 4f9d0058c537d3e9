"""The model in memory: texts to word pieces, word pieces to vectors. Blocks; ``worker`` keeps it in a thread."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import structlog

from adapters.minilm.files import TOKENIZER, check_files
from homeport.errors import InvalidRequest, Unavailable

GRAPH = Path(__file__).with_name("graph.onnx")
MAX_THREADS = 4  # more do not pay for matrices of this size

log = structlog.get_logger(__name__)


class Runtime:
    """Loaded when it is made: reads and checks the files in ``folder`` (None: the wheel's), which takes a part of a second.

    Raises Unavailable (PROVIDER_UNAVAILABLE) that says what to install.
    """

    def __init__(self, folder: Path | None = None, threads: int | None = None) -> None:
        started = perf_counter()
        folder = check_files(folder)
        threads = threads or min(_cores(), MAX_THREADS)
        try:
            self._numpy: Any = importlib.import_module("numpy")
            self._tokenizer = _load_tokenizer(folder)
            self._session = _open_session(folder, threads)
        except ImportError as error:
            log.warning("the local embedding model cannot be loaded", reason=str(error))
            message = (
                f"The package '{error.name}', which the local embedding model needs, cannot be imported. Install Homeport again; "
                "on an Intel Mac, for which there is no onnxruntime, use another provider."
            )
            raise Unavailable(message, code="PROVIDER_UNAVAILABLE") from error
        log.info("local embedding model loaded", seconds=round(perf_counter() - started, 3), threads=threads)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The word pieces of each text, the two that mark its begin and end included. Raises InvalidRequest."""
        # One by one: the batch call starts threads of its own.
        return [self._encode(text, index) for index, text in enumerate(texts)]

    def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """A vector of length 1 for each text, given as its word pieces. All run at once, padded to the longest."""
        shape = len(texts), max(map(len, texts))
        pieces, mask = self._numpy.zeros(shape, "int64"), self._numpy.zeros(shape, "int64")
        for row, text in enumerate(texts):
            pieces[row, : len(text)] = text
            mask[row, : len(text)] = 1
        [vectors] = self._session.run(None, {"pieces": pieces, "mask": mask})
        listed: list[list[float]] = vectors.tolist()
        return listed

    def _encode(self, text: str, index: int) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"The text at index {index} holds half of a surrogate pair, which is no character.") from error
        pieces: list[int] = self._tokenizer.encode(text).ids
        return pieces


def _load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER.name))
    # The published file pads to 128 pieces and cuts off there.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _open_session(folder: Path, threads: int) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that has nothing to do leaves its core to others
    return onnxruntime.InferenceSession(GRAPH.read_bytes(), options, providers=["CPUExecutionProvider"])


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
