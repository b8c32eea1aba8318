"""``python -m worker``, also installed as ``sellfern-worker``."""

from worker.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
