"""Runs a command of the ingress that SIGKILL ends at a point where that would matter."""

import os
import signal
import sys

from ingress.cli import main
from ingress.management.exchange import Exchange
from shared.files import atomic as atomic_file
from tests.management_support import Death


class Kill(Death):
    """The death of a process, which nothing in it can see coming."""

    def die(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


def _arm(death: Death) -> None:
    for name in ("_write", "_sync_folder"):
        setattr(atomic_file, name, death.after(getattr(atomic_file, name)))
    Exchange._attempt = death.around(Exchange._attempt)  # type: ignore[method-assign]


if __name__ == "__main__":
    _arm(Kill(int(sys.argv.pop(1))))
    main()
