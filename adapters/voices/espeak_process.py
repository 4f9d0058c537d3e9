"""The process that eSpeak NG runs in: ``python -m adapters.voices.espeak_process``. See ``adapters.voices.serving``."""

from adapters.voices.espeak_library import EspeakLibrary
from adapters.voices.serving import serve

if __name__ == "__main__":
    serve(EspeakLibrary)
