"""What a management command works with, opened for the time of the command."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import click
from aiohttp import ClientSession

from ingress.management.acting import Confirm, telling
from ingress.management.api_errors import OperationUnavailable
from ingress.management.client import Client
from ingress.management.editing import EndpointsEditor, read_endpoints
from ingress.management.exchange import Access, Exchange, client_session
from ingress.management.journal import Journal
from ingress.management.settings import ManagementSettings, api_key
from shared.display import escape_controls
from shared.endpoints.endpoint import Endpoint, Endpoints, nearest
from shared.errors import SettingsError
from shared.queue.keys import ORGANIZATION_PATTERN
from shared.sellfern.reference import Reference
from shared.sellfern.reference_file import load_reference
from shared.settings.reader import NOTHING

Told = Callable[[str], None]
"""Is told on a line how things go."""


@dataclass(frozen=True)  # no slots: `writing` takes over all that there is
class Reading:
    """What a command looks at.

    Attributes:
        settings: of the commands.
        reference: what there is to ask for.
        organization: the one that the API key belongs to.
        endpoints: of the endpoints file; none where there is no file yet.
        client: asks Sellfern.
        journal: of what has no known outcome.
        session: makes requests to others.
    """

    settings: ManagementSettings
    reference: Reference
    organization: str
    endpoints: Endpoints
    client: Client
    journal: Journal
    session: ClientSession

    def mine(self, endpoint_id: str) -> Endpoint:
        """The endpoint of this id, which is the organization's.

        Raises:
            SettingsError: there is none, or it is another organization's.
        """
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None:
            got = f"{endpoint_id!r}{nearest(endpoint_id, list(self.endpoints))}"
            raise SettingsError("ENDPOINT", "one of the endpoints file", got)
        if endpoint.organization_id != self.organization:
            expected = f"an endpoint of {self.organization}, which the API key belongs to"
            raise SettingsError("ENDPOINT", expected, f"one of {endpoint.organization_id}")
        return endpoint


@dataclass(frozen=True)
class Writing(Reading):
    """What a command changes; no other one writes meanwhile.

    Attributes:
        editor: changes the endpoints file.
        confirm: shows what is going to happen, and asks.
    """

    editor: EndpointsEditor
    confirm: Confirm


@contextlib.asynccontextmanager
async def reading(organization: str | None, *, needs: Sequence[str]) -> AsyncIterator[Reading]:
    """Open what is needed to look.

    Args:
        organization: the one that the API key belongs to, if it is said.
        needs: the operations that will be asked for.

    Raises:
        OperationUnavailable: the API Reference doesn't list one of them.
        SettingsError: a setting or a file is wrong.
        JournalError: the journal can't be read.
    """
    settings = ManagementSettings.from_environ(os.environ)
    endpoints = read_endpoints(settings.common.endpoints_file, os.environ)
    reference = _reference(settings, needs)
    journal = Journal(settings.journal)
    async with _asking(settings, reference, endpoints, organization, journal) as opened:
        yield opened


@contextlib.asynccontextmanager
async def writing(
    organization: str | None, *, needs: Sequence[str], yes: bool, action: str, about: str
) -> AsyncIterator[Writing]:
    """Open what is needed to change something; waits for other commands that do.

    What came of it is told as an action of an operator.

    Args:
        organization: the one that the API key belongs to, if it is said.
        needs: the operations that will be asked for.
        yes: don't ask.
        action: what is done, such as ``enable endpoint``.
        about: to which endpoint.

    Raises:
        OperationUnavailable: the API Reference doesn't list one of them.
        SettingsError: a setting or a file is wrong.
        JournalError: the journal can't be used.
    """
    settings = ManagementSettings.from_environ(os.environ)
    reference = _reference(settings, needs)
    # What isn't listed is told before: nobody waits for a journal only to learn that.
    with Journal.locked(settings.journal) as journal:
        # Within the lock: another command may just have changed the file.
        editor = EndpointsEditor(settings.common.endpoints_file, os.environ)
        async with (
            _asking(settings, reference, editor.endpoints, organization, journal) as opened,
            telling(
                action, partial(confirm, yes=yes), organization=opened.organization, about=about
            ) as ask,
        ):
            yield Writing(**vars(opened), editor=editor, confirm=ask)


def confirm(lines: Sequence[str], *, yes: bool) -> None:
    """Show what is going to happen and ask whether it may; all of it on stderr.

    Raises:
        click.Abort: it may not.
    """
    for line in lines:
        tell(line)
    if yes:
        return
    # The loop's handler would let the first Ctrl-C wait for an answer.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # On stderr: stdout has the result alone, which a script may read.
        click.confirm("go on?", abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)


def tell(line: str) -> None:
    """Say on stderr how things go."""
    click.echo(escape_controls(line), err=True)


@contextlib.asynccontextmanager
async def _asking(
    settings: ManagementSettings,
    reference: Reference,
    endpoints: Endpoints,
    organization: str | None,
    journal: Journal,
) -> AsyncIterator[Reading]:
    name = key_organization(organization, endpoints, settings)
    access = Access(settings.api_url, api_key(os.environ), name)
    async with client_session() as session:
        exchange = Exchange(session, access, settings.persistence, tell)
        client = Client(exchange, reference, journal)
        yield Reading(settings, reference, name, endpoints, client, journal, session)


def _reference(settings: ManagementSettings, needs: Sequence[str]) -> Reference:
    """What there is to ask for; checked before anything else, even whether there is a key."""
    reference = load_reference(settings.common)
    for operation in needs:
        if not reference.has_operation(operation):
            raise OperationUnavailable(operation)
    return reference


def key_organization(given: str | None, endpoints: Endpoints, settings: ManagementSettings) -> str:
    """Whose the API key is: as it is said, by its id or an endpoint's, or the only one there is.

    Raises:
        SettingsError: it isn't said, and there are several, or none.
    """
    setting = "SELLFERN_ORGANIZATION"
    known = list(endpoints.organizations)
    expected = "the organization that the API key belongs to (or --organization)"
    if not given:
        if len(known) != 1:
            file = settings.common.endpoints_file
            got = f"{NOTHING}, and {len(known)} organizations in {file}"
            raise SettingsError(setting, expected, got)
        return known[0]
    if not ORGANIZATION_PATTERN.fullmatch(given):
        raise SettingsError(setting, "1 to 64 letters, digits, _ or -", repr(given)[:80])
    # People have the endpoint's id at hand. Where an organization is called so, that one is meant.
    if given in endpoints and given not in known:
        return endpoints[given].organization_id
    return given
