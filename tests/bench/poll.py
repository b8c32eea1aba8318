"""``python -m tests.bench.poll PORT``: what a browser with the console's overview open asks for."""

import sys
import time
import urllib.request
from typing import Final

_EVERY_SECONDS: Final = 2.0  # as the page says to htmx


def main() -> None:
    """Ask until somebody ends this process."""
    address = f"http://127.0.0.1:{int(sys.argv[1])}/"
    while True:
        with urllib.request.urlopen(address, timeout=10) as answer:  # on this machine
            answer.read()
        time.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    main()
