"""``python -m ingress``, also installed as ``sellfern-ingress``."""

from ingress.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
