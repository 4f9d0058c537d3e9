"""A model of whisper that always hears the same sentence, made in milliseconds out of nothing, for the real code path of faster-whisper.

All attention and feed-forward weights are zero, so what a token means passes through the decoder unchanged, and the last matrix is a
table: each token of the sentence makes the next one likely. The encoder runs, but nothing listens to it. Word timestamps do not work.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENTENCE = "please open the blue door"
GERMAN = "bitte mach die Tür auf"
LANGUAGES = ("en", "de", "fr")
# Which ends where every sentence does, in the 30 s that whisper listens to at a time.
END = "<|2.00|>"
WIDTH = 64
HEADS = 2
LAYERS = 2
MELS = 80
CERTAINTY = 20.0


def make_whisper_model(folder: Path, *, sentence: str = SENTENCE, language: str | None = None) -> Path:
    """Write a model into ``folder`` that always hears ``sentence``, whose words differ from each other, from 0 to 2 s of every 30.

    With a language it is multilingual, and takes whatever it hears for that one; otherwise it knows English only.
    """
    words = _bytes_as_text(sentence)
    if len(set(words)) != len(words):
        raise ValueError("a word determines the next, so none may stand in the sentence twice")
    # ctranslate2 knows a multilingual model by an empty token.
    plain = [*_alphabet(), *words, *([""] if language else [])]
    specials = _specials(is_multilingual=language is not None)
    folder.mkdir(parents=True)
    _write_tokenizer(folder, plain, specials)
    tokens = [*plain, *specials]
    _write_model(folder, tokens, [(tokens.index(each), tokens.index(following)) for each, following in _chain(words, language)])
    return folder


def _chain(words: Sequence[str], language: str | None) -> Iterable[tuple[str, str]]:
    """What follows on what."""
    yield from pairwise(["<|transcribe|>" if language else "<|startoftranscript|>", "<|0.00|>", *words, END, "<|endoftext|>"])
    yield "<|notimestamps|>", words[0]
    if language:
        yield "<|startoftranscript|>", f"<|{language}|>"


def _specials(*, is_multilingual: bool) -> list[str]:
    names = ["endoftext", "startoftranscript", *(LANGUAGES if is_multilingual else ())]
    names += ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    return [f"<|{name}|>" for name in [*names, *(f"{number * 0.02:.2f}" for number in range(1501))]]


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _bytes_as_text(sentence: str) -> list[str]:
    """Each word with the blank before it, its bytes as the letters that stand for them in a vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(f" {word}")[0][0] for word in sentence.split()]


def _write_tokenizer(folder: Path, plain: Sequence[str], specials: Sequence[str]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={token or "<empty>": number for number, token in enumerate(plain)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in specials])
    tokenizer.save(str(folder / "tokenizer.json"))


def _write_model(folder: Path, tokens: Sequence[str], pairs: Sequence[tuple[int, int]]) -> None:
    from ctranslate2.specs.whisper_spec import WhisperSpec

    spec: Any = WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    _fill_encoder(spec.encoder)
    _fill_decoder(spec.decoder, len(tokens), pairs)
    spec.register_vocabulary(list(tokens))
    languages = [number for number, token in enumerate(tokens) if token.strip("<|>") in LANGUAGES]
    spec.config.lang_ids = languages
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [(LAYERS - 1, 0)]
    spec.validate()
    spec.save(str(folder))


def _fill_encoder(encoder: Any) -> None:
    _linear(encoder.conv1, WIDTH, MELS, 3)
    _linear(encoder.conv2, WIDTH, WIDTH, 3)
    encoder.position_encodings.encodings = _zeros(1500, WIDTH)
    _normal(encoder.layer_norm)
    for layer in encoder.layer:
        _fill_attention(layer.self_attention, 3)
        _fill_feed_forward(layer.ffn)


def _fill_decoder(decoder: Any, size: int, pairs: Sequence[tuple[int, int]]) -> None:
    meanings = np.random.default_rng(0).standard_normal((size, WIDTH))
    meanings = (meanings - meanings.mean(axis=1, keepdims=True)) / meanings.std(axis=1, keepdims=True)
    table = np.zeros((size, WIDTH))
    for token, following in pairs:
        table[following] += meanings[token] * CERTAINTY / WIDTH
    decoder.embeddings.weight = meanings.astype(np.float32)
    decoder.projection.weight = table.astype(np.float32)
    decoder.position_encodings.encodings = _zeros(448, WIDTH)
    _normal(decoder.layer_norm)
    for layer in decoder.layer:
        _fill_attention(layer.self_attention, 3)
        _fill_attention(layer.attention, 1, 2)
        _fill_feed_forward(layer.ffn)


def _fill_attention(attention: Any, *widths: int) -> None:
    _normal(attention.layer_norm)
    for linear, width in zip(attention.linear, [*widths, 1], strict=True):
        _linear(linear, width * WIDTH, WIDTH)


def _fill_feed_forward(layer: Any) -> None:
    _normal(layer.layer_norm)
    _linear(layer.linear_0, 4 * WIDTH, WIDTH)
    _linear(layer.linear_1, WIDTH, 4 * WIDTH)


def _linear(layer: Any, *shape: int) -> None:
    layer.weight = _zeros(*shape)
    layer.bias = _zeros(shape[0])


def _normal(layer: Any) -> None:
    layer.gamma = np.ones(WIDTH, np.float32)
    layer.beta = _zeros(WIDTH)


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)
