"""Runs a demo, or what handlers are developed with: ``python -m deploy.local demo``."""

import sys
from importlib import import_module
from typing import Final, NoReturn

_COMMANDS: Final = {
    "demo": "deploy.local.demo:main",
    "scale-demo": "deploy.local.scale_demo:main",
    "dev": "deploy.local.dev:main",
    "redis": "deploy.local.dev:redis",
    "cluster": "deploy.local.dev:cluster",
}
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command that is asked for; it may be interrupted from its first moment."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _COMMANDS:
        _end(f"error: expected one of {', '.join(_COMMANDS)}, got {name!r}", _USAGE_ERROR)
    module, _, command = _COMMANDS[name].partition(":")
    # Loading takes a while, in which nothing else catches Ctrl-C; a traceback is no answer to it.
    try:
        run = getattr(import_module(module), command)
    except KeyboardInterrupt:
        _end("interrupted; nothing was started", _INTERRUPTED)
    run(sys.argv[2:], prog_name=f"python -m deploy.local {name}")


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201  # click isn't there
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
