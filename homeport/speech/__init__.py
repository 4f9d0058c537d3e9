"""Speech: texts to sound, sound to texts."""
