"""Storage: settings as text (`spec`) and checkpoints (`checkpoint`). Nothing is ever unpickled."""
