"""Tells what a command has done at Sellfern, or here, as all commands of operators are told.

None of these needs Redis for what it does. Where ``REDIS_URL`` is set, the last actions have it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import click

from ingress.management.api_errors import EventUnavailable, OperationUnavailable, OutcomeUnknown
from ingress.management.journal import OutcomeTooOld
from shared.errors import SellfernError, SettingsError
from shared.queue.actions import Action, on_stderr, record_within, whoami
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader

Confirm = Callable[[Sequence[str]], None]
"""Shows what is going to happen, and asks; of no lines: somebody has agreed to it before."""

_SECONDS: Final = 1.0
"""For which Redis is waited for: what was done is done."""


class Unfinished(SellfernError):
    """A command has come as far as it can for now; the same command again goes on."""


COME_AGAIN: Final = (OutcomeUnknown, OutcomeTooOld, Unfinished)
"""What ends a command that has perhaps done something, or some of it: so it is to be run again."""

_NOT_BEGUN: Final = (SettingsError, OperationUnavailable, EventUnavailable)
"""What ends a command before anything is asked for, unless somebody has agreed to that."""


async def tell_action(action: str, **about: Any) -> None:
    """Tell what was done; a Redis that isn't there takes nothing back.

    Args:
        action: what.
        about: on what, and what came of it, by the names of `Action`.
    """
    done = Action(action, "command", *whoami(), **about)
    reader = Reader(os.environ)
    if reader.is_set("REDIS_URL") or reader.is_set("REDIS_URL_FILE"):
        await record_within(CommonSettings.from_environ(os.environ), _SECONDS, done)
    else:
        on_stderr("operator_action", done.fields)


@contextlib.asynccontextmanager
async def telling(action: str, confirm: Confirm, **about: str) -> AsyncIterator[Confirm]:
    """Tell what is done in the block, at its end: nothing where nobody has agreed to it.

    Args:
        action: what.
        confirm: asks whether it may be done.
        about: on what, by the names of `Action`.

    Returns:
        what asks in the block.
    """
    outcome, agreed = "", list[bool]()

    def ask(lines: Sequence[str]) -> None:
        if lines:
            confirm(lines)
        agreed.append(True)

    try:
        yield ask
        outcome = "done"
    except (KeyboardInterrupt, asyncio.CancelledError):
        outcome = "interrupted" if agreed else ""
        raise
    except click.Abort:
        raise
    except COME_AGAIN as exc:
        outcome = f"unfinished: {exc}"
        raise
    except SellfernError as exc:
        outcome = f"failed: {exc}" if agreed or not isinstance(exc, _NOT_BEGUN) else ""
        raise
    except Exception:
        outcome = "failed"
        raise
    finally:
        if outcome:
            await tell_action(action, **about, outcome=outcome)
