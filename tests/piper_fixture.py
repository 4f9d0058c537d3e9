"""A voice for Piper, made in milliseconds: its inputs, outputs and files are those of a real one, and what it says is a tone."""

import json
from pathlib import Path
from typing import Any

RATE = 22_050
SAMPLES_PER_SYMBOL = 1024
PHONEMES = "_^$ abcdefghijklmnopqrstuvwxyzɐɑɒæɔəɚɛɜɡɪɹʃʊʌʒθðŋɾʔˈˌːˑ.,!?;:-'"  # noqa: RUF001 - phonetic letters


def make_piper_voice(folder: Path, name: str, language: str = "en_US", speakers: tuple[str, ...] = ()) -> None:
    """Write a voice's two files. Each symbol of a text lasts 46 ms at speed 1; speakers differ in pitch."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_model(has_speakers=bool(speakers)), folder / f"{name}.onnx")
    description: dict[str, Any] = {
        "audio": {"sample_rate": RATE},
        "espeak": {"voice": language.lower().replace("_", "-")},
        "language": {"code": language},
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_id_map": {phoneme: [number] for number, phoneme in enumerate(PHONEMES)},
        "num_symbols": 256,
        "num_speakers": max(1, len(speakers)),
        "speaker_id_map": {speaker: number for number, speaker in enumerate(speakers)},
    }
    (folder / f"{name}.onnx.json").write_text(json.dumps(description), encoding="utf-8")


def _model(*, has_speakers: bool) -> Any:
    """sin(0.05 (speaker + 1) n) for n up to the number of symbols times their length; ``scales`` holds noise, length, noise again."""
    from onnx import TensorProto, helper

    def constant(name: str, kind: int, *values: float) -> Any:
        return helper.make_tensor(name, kind, [len(values)] if len(values) > 1 else [], values)

    nodes = [
        helper.make_node("Cast", ["input_lengths"], ["symbols"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["scales", "one"], ["length"], axis=0),
        helper.make_node("Mul", ["symbols", "length"], ["lengths"]),
        helper.make_node("Mul", ["lengths", "samples_per_symbol"], ["samples"]),
        helper.make_node("Squeeze", ["samples"], ["count"]),
        helper.make_node("Range", ["zero", "count", "step"], ["numbers"]),
        helper.make_node("Cast", ["sid" if has_speakers else "no_speaker"], ["speaker"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["speaker", "step"], ["pitch"]),
        helper.make_node("Mul", ["numbers", "pitch"], ["angles"]),
        helper.make_node("Mul", ["angles", "radians"], ["scaled"]),
        helper.make_node("Sin", ["scaled"], ["tone"]),
        helper.make_node("Reshape", ["tone", "shape"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "symbols"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
        *([helper.make_tensor_value_info("sid", TensorProto.INT64, [1])] if has_speakers else []),
    ]
    constants = [
        constant("one", TensorProto.INT64, 1),
        constant("zero", TensorProto.FLOAT, 0.0),
        constant("step", TensorProto.FLOAT, 1.0),
        constant("radians", TensorProto.FLOAT, 0.05),
        constant("samples_per_symbol", TensorProto.FLOAT, SAMPLES_PER_SYMBOL),
        constant("no_speaker", TensorProto.INT64, 0),
        constant("shape", TensorProto.INT64, 1, 1, 1, -1),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "samples"])]
    graph = helper.make_graph(nodes, "voice", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
