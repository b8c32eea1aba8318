"""``make demo``, which can be interrupted from its first moment."""

import sys
from typing import Final

_INTERRUPTED: Final = 130


def main() -> None:
    """Run the demo."""
    try:
        # Loading it takes a while, and a traceback is no answer to Ctrl-C.
        from deploy.local.play import main as play  # noqa: PLC0415
    except KeyboardInterrupt:
        print("interrupted; nothing was started", file=sys.stderr)  # noqa: T201  # click isn't there
        raise SystemExit(_INTERRUPTED) from None
    play()


if __name__ == "__main__":
    main()
