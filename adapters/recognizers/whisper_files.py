"""Where models of whisper lie, and what makes one complete: ``<folder>/<name>/`` with the files that faster-whisper reads.

A folder that somebody filled by hand is as good as one that was fetched. Whatever the name, nothing is looked for anywhere else.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from adapters.recognizers import RecognizerModel

WEIGHTS = "model.bin"
NEEDED = ("config.json", "tokenizer.json", WEIGHTS)
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
# Only the largest model needs it: it hears in finer bands.
OPTIONAL = ("preprocessor_config.json",)
# The models that can be fetched, smallest first. Those with .en know English only, and are a little better at it for their size.
FETCHABLE = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v3")
USUAL = "small"
# As other programs call the same models: onnx-community/whisper-base, Systran/faster-whisper-base.
_PREFIX = re.compile(r"(?:.*/)?(?:faster-)?(?:whisper-)?", re.DOTALL)


def list_models(folder: Path) -> Sequence[RecognizerModel]:
    """The complete models in ``folder``, the largest first: it makes the fewest mistakes."""
    if not folder.is_dir():
        return ()
    found = [_describe(each) for each in folder.iterdir() if not each.name.startswith(".") and is_complete(each)]
    return tuple(sorted(found, key=lambda model: (-(model.size_bytes or 0), model.id)))


def is_complete(folder: Path) -> bool:
    """Whether a model can be loaded from here without looking anywhere else."""
    return all((folder / name).is_file() for name in NEEDED) and any((folder / name).is_file() for name in VOCABULARIES)


def plain_name(model: str) -> str:
    """A model's name without what other programs put in front of it."""
    return _PREFIX.sub("", model, count=1)


def _describe(folder: Path) -> RecognizerModel:
    name = folder.name
    title = f"Whisper {name.removesuffix('.en')}{' (English)' if name.endswith('.en') else ''}"
    return RecognizerModel(name, title, "en" if name.endswith(".en") else None, (folder / WEIGHTS).stat().st_size)
