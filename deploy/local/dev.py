"""``make dev``, which can be interrupted from its first moment."""

from collections.abc import Callable

from deploy.local.interruptible import start


def _load() -> Callable[[], object]:
    from deploy.local.developing import main  # noqa: PLC0415  # loading it is what takes a while

    return main


if __name__ == "__main__":
    start(_load)
