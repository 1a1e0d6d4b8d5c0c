"""`python -m scoresde` is the command `scoresde`; accelerate's launcher starts it as ``-m scoresde``."""

from scoresde.cli import app

if __name__ == "__main__":
    app()
