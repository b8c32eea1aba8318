"""Registers an endpoint at Sellfern and keeps the secret that Sellfern shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from ingress.management.acting import Unfinished
from ingress.management.client import CREATE, LIST
from ingress.management.context import Writing, tell
from ingress.management.matching import registrations
from shared.errors import SettingsError
from shared.settings.secret import Secret

ReadSecret = Callable[[], Secret | None]
"""Gives the secret that was copied from the dashboard, if somebody gives it."""

_READ: Final = "the ingress reads it within a second"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The endpoint to register.

    Attributes:
        id: here.
        url: as Sellfern reaches it.
        events: that it is to get.
        enabled: whether it gets any at once.
    """

    id: str
    url: str
    events: tuple[str, ...]
    enabled: bool


class Registered(msgspec.Struct, frozen=True):
    """An endpoint that Sellfern has.

    Attributes:
        remote_id: Sellfern's.
        url: as it is registered.
        organization: whose.
    """

    remote_id: str
    url: str
    organization: str


async def register(
    context: Writing, wanted: Wanted, read_secret: ReadSecret
) -> tuple[Registered, Secret]:
    """Register an endpoint and add it to the file, or go on where that was interrupted.

    Raises:
        Unfinished: Sellfern showed no secret, and nobody gave it.
        SellfernError: it can't be done.
    """
    note = f"registration/{wanted.id}"
    done = context.journal.noted(note, Registered)
    if done is not None and wanted.id in context.editor.endpoints:  # somebody added it by hand
        done = None
        context.journal.note(note, None)
        context.journal.save()
    if done is None:
        await _check_new(context, wanted)
        done, secret = await _create(context, wanted, note)
        if secret is not None:
            return done, secret
    else:
        context.confirm([])
    secret = _copied(context, wanted.id, done, read_secret)
    context.editor.add(wanted.id, done.organization, secret)
    context.journal.note(note, None)
    context.journal.save()
    return done, secret


async def _check_new(context: Writing, wanted: Wanted) -> None:
    """Refuse what would become a second registration."""
    if context.client.has_begun_creating(wanted.url, wanted.events, enabled=wanted.enabled):
        return
    for entry in context.journal.pending:
        # The same URL with other events is another request, and would be a second registration.
        mine = (entry.organization, entry.operation) == (context.organization, CREATE)
        if mine and msgspec.json.encode(wanted.url).decode() in entry.summary:
            raise Unfinished(
                f"an earlier request for this URL has no known outcome: {entry.summary}. Run the "
                f"same command as then, or look at Sellfern and: endpoints pending --forget "
                f"{entry.key}"
            )
    if wanted.id in context.editor.endpoints:
        file = context.editor.path
        raise SettingsError("ENDPOINT", f"one that isn't in {file} yet", repr(wanted.id))
    if context.reference.has_operation(LIST):
        for remote in registrations(await context.client.endpoints(), wanted.id):
            got = f"{remote.id} ({remote.url}), whose secret was shown when it was created"
            raise SettingsError("ENDPOINT", "one that Sellfern doesn't have yet", got)


async def _create(context: Writing, wanted: Wanted, note: str) -> tuple[Registered, Secret | None]:
    context.confirm(
        [
            f"create an endpoint at Sellfern for {context.organization}: {wanted.url}",
            f"  events: {', '.join(wanted.events)}; {'enabled' if wanted.enabled else 'disabled'}",
            f"add {wanted.id} with its secret to {context.editor.path}; {_READ}",
        ]
    )
    async with context.client.creating(
        wanted.url, wanted.events, enabled=wanted.enabled
    ) as created:
        done = Registered(created.id, created.url, context.organization)
        if created.secret is None:
            # It outlives this command: Sellfern showed no secret, so somebody has to copy it first.
            context.journal.note(note, done)
        else:
            context.editor.add(wanted.id, context.organization, created.secret)
    return done, created.secret


def _copied(
    context: Writing, endpoint_id: str, done: Registered, read_secret: ReadSecret
) -> Secret:
    where = "Sellfern's dashboard shows it at the endpoint"
    tell(f"{done.url} is registered as {done.remote_id}, and its secret isn't known yet: {where}")
    secret = read_secret()
    if secret is None:
        raise Unfinished(
            f"copy the secret of {done.remote_id}, then: endpoints register {endpoint_id} "
            f"--secret-file FILE (- is stdin). Until then {context.editor.path} stays as it is, "
            "and deliveries are refused"
        )
    return secret
