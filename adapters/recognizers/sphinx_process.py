"""The process that pocketsphinx runs in: ``python -m adapters.recognizers.sphinx_process``, started by
``adapters.recognizers.pocketsphinx``.

A process of its own, because the library holds Python's global lock while it works: in a thread it would stop the whole server for seconds.

It reads utterances from its standard input, each a length (4 bytes, little-endian) and samples (16 kHz, 16 bits, mono), and answers each on
its standard output with a length and JSON, ``[[word, start_s, end_s], …]``. It says an empty list as soon as it is ready. It ends with its
input, so it does not outlive its parent.
"""

import json
import sys
from typing import BinaryIO

FRAMES_PER_S = 100
LENGTH_BYTES = 4


def main() -> None:
    """Answer utterances until the input ends."""
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _answer(answers, [])
    while len(length := requests.read(LENGTH_BYTES)) == LENGTH_BYTES:
        samples = requests.read(int.from_bytes(length, "little"))
        # It would otherwise go on from the noise that it heard before, in what somebody else has sent.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        _answer(
            answers, [(each.word, each.start_frame / FRAMES_PER_S, (each.end_frame + 1) / FRAMES_PER_S) for each in decoder.seg() or ()]
        )


def _answer(answers: BinaryIO, words: list[tuple[str, float, float]]) -> None:
    content = json.dumps(words).encode()
    answers.write(len(content).to_bytes(LENGTH_BYTES, "little") + content)
    answers.flush()


if __name__ == "__main__":
    main()
