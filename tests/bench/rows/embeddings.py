"""How many short texts a second the embedding model that runs here turns into vectors, on one core."""

import json
import random
from pathlib import Path
from typing import Any

from tests.bench.calls import Calls, running_caller
from tests.bench.cores import SERVER_CORE
from tests.bench.homeport_server import running_homeport
from tests.bench.table import Effort, Line, Measured
from tests.bench.workers import running_worker

BATCH = 32
CLIENTS = 16
WHO = ("The gardener", "Our accountant", "A young engineer", "The night train", "My neighbour's dog", "The old library")
DOES = ("waited for", "wrote a letter about", "never forgot", "was proud of", "asked three questions about", "quietly repaired")
WHAT = ("the beetroot harvest", "an unpaid invoice", "the leaking roof", "a lost suitcase", "the spring concert", "a new database index")
WHEN = ("last winter.", "before breakfast.", "for many years.", "in the middle of July.", "without telling anyone.", "during the storm.")


def measure_embedding(folder: Path, effort: Effort) -> list[Line]:
    """Short texts through the adapter, in batches of 32; and over HTTP in the same batches, and one by one from 16 clients."""
    texts = _sentences(effort.calls * 2)
    body = {"provider": None, "model": None}
    batches = [json.dumps({"input": texts[start : start + BATCH], **body}) for start in range(0, len(texts) - BATCH + 1, BATCH)]
    singles = [json.dumps({"input": [text], **body}) for text in texts]
    rates: dict[str, list[float]] = {"adapter": [], "batches": [], "singles": []}
    with (
        running_homeport(folder) as homeport,
        running_caller() as caller,
        running_worker("tests.bench.peers.embedding_calls", core=SERVER_CORE) as adapter,
    ):
        url, headers = f"{homeport.base}/sdk/llm/embed", homeport.headers
        for _ in range(effort.rounds):
            took: dict[str, Any] = adapter.ask({"texts": texts, "batch": BATCH})
            rates["adapter"].append(took["rate"])
            rates["batches"].append(caller.make(Calls(url, headers, batches, count=len(batches))).rate * BATCH)
            rates["singles"].append(caller.make(Calls(url, headers, singles, CLIENTS, len(singles))).rate)
    measured = {name: Measured.of(values) for name, values in rates.items()}
    native = measured["adapter"]
    what = f"short texts ({took['tokens']:.0f} tokens) on one core, {BATCH} at a time, in process"
    shown = {name: f"{each.median:,.0f} texts/s (±{each.spread:.0%})" for name, each in measured.items()}
    return [
        Line("embedding", what, shown["adapter"], "≥ 200 texts/s", native.median >= 200),
        Line("embedding", f"over HTTP, {BATCH} in a request, 1 client", shown["batches"]),
        Line("embedding", f"over HTTP, 1 in a request, {CLIENTS} clients", shown["singles"]),
    ]


def _sentences(count: int) -> list[str]:
    """So many sentences, the same at every run."""
    numbers = random.Random(1)
    return [" ".join(numbers.choice(words) for words in (WHO, DOES, WHAT, WHEN)) for _ in range(count)]
