"""Audio as the speech engines pass it on, and what comes and goes: files, encodings, the microphone."""
