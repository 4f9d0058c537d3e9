"""``python -m homeport`` is the command ``homeport``."""

from homeport.cli import main

if __name__ == "__main__":
    main()
