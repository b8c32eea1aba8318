"""Rotates an endpoint's secret in steps, each of which can be interrupted and run again.

    begun ──► registered ──► enabled ──► used ──► (done)

- begun: it is decided which registration is to be replaced, and by which URL
- registered: Sellfern has the second one, disabled, and the file accepts both secrets
- enabled: every ingress knows the new secret, and Sellfern delivers to both
- used: a delivery has come that the new secret verified
- done: the first registration is gone, and its secrets have an end

What a request to Sellfern leads to here (the new secret in the file, the next step in the
journal) is on disk before the journal forgets the request. Whoever dies in between asks again
with the same idempotency key, gets the same answer, and does the same once more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic, time
from typing import Final, Literal

import msgspec

from ingress.management.acting import Unfinished
from ingress.management.client import (
    CHANGE,
    CREATE,
    DELIVERIES,
    LIST,
    REMOVE,
    CreatedEndpoint,
    RemoteDelivery,
)
from ingress.management.context import Writing, tell
from ingress.management.editing import expired, fingerprints, named
from ingress.management.matching import next_rotation, the_one
from ingress.management.observation import Ingresses
from ingress.management.registration import ReadSecret
from shared.endpoints.endpoint import EndpointSecret
from shared.errors import SellfernError
from shared.settings.secret import Secret

NEEDED: Final = (LIST, CREATE, CHANGE, REMOVE)
"""The operations that a rotation without a gap takes."""

_POLL: Final = 0.2
# An ingress reads the file within a second or two: who takes longer reads another one.
_LOAD_SECONDS: Final = 30.0

Step = Literal["begun", "registered", "enabled", "used"]


class RotationError(SellfernError):
    """A rotation can't begin, go on or go back; the message says why."""


class Rotation(msgspec.Struct, frozen=True):
    """A rotation under way, as the journal keeps it.

    Attributes:
        step: the last one that is complete.
        organization: whose endpoint it is.
        old_id: Sellfern's id of the registration that is to be replaced.
        old_secrets: the fingerprints of the secrets that are to end.
        url: of the second registration.
        events: of both.
        new_id: Sellfern's id of the second registration, once there is one.
        new_secret: the fingerprint of its secret, once it is in the file.
        aborting: whether it is going back.
    """

    step: Step
    organization: str
    old_id: str
    old_secrets: list[str]
    url: str
    events: list[str]
    new_id: str = ""
    new_secret: str = ""
    aborting: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How to rotate.

    Attributes:
        remote_id: the registration to replace, where there are several.
        test: have a test delivery made to the second registration.
        wait: seconds to wait for a delivery that the new secret verifies.
        grace: seconds that the old secret is accepted after its registration is gone.
        read_secret: gives the new secret where Sellfern doesn't show it.
    """

    remote_id: str | None
    test: bool
    wait: float
    grace: float
    read_secret: ReadSecret


class Rotating:
    """The rotation of one endpoint's secret.

    Args:
        context: what it works with.
        endpoint_id: here.
        ingresses: the running ones.
        options: how.
    """

    def __init__(
        self, context: Writing, endpoint_id: str, ingresses: Ingresses, options: Options
    ) -> None:
        self._context = context
        self._id = endpoint_id
        self._ingresses = ingresses
        self._options = options
        self._note = f"rotation/{endpoint_id}"
        self._steps: dict[Step, Callable[[Rotation], Awaitable[Rotation | None]]] = {
            "begun": self._register,
            "registered": self._enable,
            "enabled": self._observe,
            "used": self._remove,
        }

    async def run(self) -> Rotation:
        """Rotate, or go on where that was interrupted; how it was at the last step.

        Raises:
            Unfinished: it has to be run again later.
            SellfernError: it can't be done.
        """
        rotation = self._known()
        if rotation is not None and rotation.aborting:
            raise RotationError(f"{self._id}: its rotation is going back; run rotate --abort again")
        if rotation is not None:
            self._context.confirm([])
        current = rotation or await self._begin()
        while True:
            # A step may wait for minutes, and somebody may edit the file meanwhile.
            self._check_there()
            following = await self._steps[current.step](current)
            if following is None:
                return current
            current = following

    async def abort(self) -> Rotation:
        """Go back: the second registration goes, and the first stays as it was.

        Raises:
            RotationError: there is nothing to go back from, or it is too late.
            SellfernError: it can't be done.
        """
        rotation = self._known()
        if rotation is None:
            raise RotationError(f"{self._id}: expected a rotation under way, got none")
        # Going back removes the second registration: then there would be none at all.
        if self._context.client.has_begun_removing(rotation.old_id):
            raise RotationError(
                f"{self._id}: the first registration may be gone already; run rotate to go on"
            )
        self._context.confirm([] if rotation.aborting else _going_back(rotation))
        if not rotation.aborting:
            rotation = self._keep(msgspec.structs.replace(rotation, aborting=True))
        # It may have been created though nobody has read the answer: asked again with the same key,
        # Sellfern says which one it is.
        if rotation.step == "begun":
            found = await self._found_out(rotation)
            if found is None:
                self._forget()
                return rotation
            rotation = found
        async with self._context.client.removing(rotation.new_id):
            self._withdraw(rotation)
            self._context.journal.note(self._note, None)
        return rotation

    def _known(self) -> Rotation | None:
        return self._context.journal.noted(self._note, Rotation)

    def _keep(self, rotation: Rotation) -> Rotation:
        self._context.journal.note(self._note, rotation)
        self._context.journal.save()
        return rotation

    def _forget(self) -> None:
        self._context.journal.note(self._note, None)
        self._context.journal.save()

    def _check_there(self) -> None:
        if self._id not in self._context.editor.endpoints:
            raise RotationError(f"{self._id} is no longer in {self._context.editor.path}")

    async def _begin(self) -> Rotation:
        """Decide what is to happen, ask, and take it down."""
        context = self._context
        remotes = await context.client.endpoints()
        old = the_one(remotes, self._id, self._options.remote_id)
        await self._check_ingresses()
        rotation = Rotation(
            step="begun",
            organization=context.organization,
            old_id=old.id,
            old_secrets=fingerprints(context.editor.endpoints[self._id]),
            url=next_rotation(remotes, old),
            events=old.events,
        )
        context.client.check_events(rotation.events)
        context.confirm(self._plan(rotation))
        return self._keep(rotation)

    async def _check_ingresses(self) -> None:
        """Every ingress has to read this very file, or it would refuse the new secret."""
        for secret in self._context.editor.endpoints[self._id].active(time()):
            if not await self._ingresses.all_know(self._id, secret.value):
                raise RotationError(
                    f"{self._id}: expected every ingress to know its secrets as "
                    f"{self._context.editor.path} has them, got one that doesn't; do they read "
                    "this file?"
                )

    async def _register(self, rotation: Rotation) -> Rotation:
        # Disabled: a delivery with a secret that no ingress knows yet would be refused.
        tell(f"{self._id}: registering {rotation.url}, disabled at first")
        async with self._context.client.creating(
            rotation.url, rotation.events, enabled=False
        ) as created:
            if created.secret is not None:
                self._accept(created.secret)
            return self._registered(rotation, created)

    def _registered(self, rotation: Rotation, created: CreatedEndpoint) -> Rotation:
        """Note what the answer says; it is on disk once the journal has settled the request."""
        following = msgspec.structs.replace(
            rotation,
            step="registered",
            new_id=created.id,
            new_secret="" if created.secret is None else EndpointSecret(created.secret).fingerprint,
        )
        self._context.journal.note(self._note, following)
        return following

    def _accept(self, secret: Secret) -> None:
        """Take a secret in, and out those that have ended: rotations mustn't pile them up."""
        self._context.editor.accept(self._id, secret)
        self._context.editor.drop(self._id, expired(time()))

    async def _enable(self, rotation: Rotation) -> Rotation:
        if not rotation.new_secret:
            rotation = self._copied(rotation)
        tell(f"{self._id}: both secrets are in the file; waiting until every ingress has read it")
        secret = self._new_secret(rotation)
        await self._until(
            lambda: self._ingresses.all_know(self._id, secret),
            _LOAD_SECONDS,
            "every ingress has read the new secret",
        )
        tell(f"{self._id}: enabling {rotation.new_id}")
        async with self._context.client.switching(rotation.new_id, enabled=True):
            following = msgspec.structs.replace(rotation, step="enabled")
            self._context.journal.note(self._note, following)
        return following

    def _copied(self, rotation: Rotation) -> Rotation:
        """Take in the secret that somebody has copied from the dashboard."""
        tell(f"{rotation.url} is registered as {rotation.new_id}; Sellfern showed no secret")
        secret = self._options.read_secret()
        if secret is None:
            raise Unfinished(
                f"copy the secret of {rotation.new_id} from Sellfern's dashboard, then: "
                f"endpoints rotate {self._id} --secret-file FILE (- is stdin)"
            )
        self._check_fresh(rotation, secret)
        self._accept(secret)
        fingerprint = EndpointSecret(secret).fingerprint
        return self._keep(msgspec.structs.replace(rotation, new_secret=fingerprint))

    def _new_secret(self, rotation: Rotation) -> Secret:
        """The secret whose fingerprint the journal has; the file alone has the secret."""
        editor, is_new = self._context.editor, named([rotation.new_secret])
        for secret in filter(is_new, editor.endpoints[self._id].secrets):
            return secret.value
        raise RotationError(
            f"{self._id}: expected its new secret in {editor.path}, got none with the fingerprint "
            f"{rotation.new_secret}. Put it back, or run rotate --abort"
        )

    def _check_fresh(self, rotation: Rotation, secret: Secret) -> None:
        if EndpointSecret(secret).fingerprint in rotation.old_secrets:
            raise RotationError(f"{self._id}: expected the new secret, got one that it has already")

    async def _observe(self, rotation: Rotation) -> Rotation:
        if self._options.test:
            tell(f"{self._id}: asking for a test delivery")
            async with self._context.client.testing(rotation.new_id):
                pass
        tell(f"{self._id}: waiting for a delivery that the new secret verifies")
        secret = self._new_secret(rotation)

        # Seen to verify while the first registration, which surely works, is still there.
        async def is_used() -> bool:
            return await self._ingresses.count(self._id, secret) > 0

        await self._until(is_used, self._options.wait, "a delivery came with the new secret")
        return self._keep(msgspec.structs.replace(rotation, step="used"))

    async def _remove(self, rotation: Rotation) -> None:
        # A removal that was begun may be done already: of its deliveries nobody could tell then.
        is_removing = self._context.client.has_begun_removing(rotation.old_id)
        if self._context.reference.has_operation(DELIVERIES) and not is_removing:
            await self._until(
                lambda: self._is_quiet(rotation.old_id),
                self._options.wait,
                f"Sellfern retries no delivery to {rotation.old_id} any more",
            )
        tell(f"{self._id}: removing {rotation.old_id}")
        async with self._context.client.removing(rotation.old_id):
            until = _moment(time() + self._options.grace)
            # Not at once: what was signed with the old one may still be on its way.
            self._context.editor.retire(self._id, named(rotation.old_secrets), until)
            self._context.journal.note(self._note, None)

    async def _is_quiet(self, remote_id: str) -> bool:
        """Whether no delivery to a registration is being retried: it would go with it."""
        deliveries = await self._context.client.deliveries(remote_id)
        return not any(map(_is_retried, deliveries))

    async def _found_out(self, rotation: Rotation) -> Rotation | None:
        """What became of a second registration that was perhaps asked for."""
        client = self._context.client
        if not client.has_begun_creating(rotation.url, rotation.events, enabled=False):
            return None
        async with client.creating(rotation.url, rotation.events, enabled=False) as created:
            return self._registered(rotation, created)

    def _withdraw(self, rotation: Rotation) -> None:
        """Take the new secret back; deliveries that are on their way may still bear it."""
        if not rotation.new_secret or self._id not in self._context.editor.endpoints:
            return
        began = self._context.client.has_begun_enabling(rotation.new_id)
        if rotation.step == "registered" and not began:  # never enabled, so never used
            self._context.editor.drop(self._id, named([rotation.new_secret]))
            return
        until = _moment(time() + self._options.grace)
        self._context.editor.retire(self._id, named([rotation.new_secret]), until)

    async def _until(
        self, fact: Callable[[], Awaitable[bool]], seconds: float, expected: str
    ) -> None:
        deadline = monotonic() + seconds
        while not await fact():
            if monotonic() >= deadline:
                raise Unfinished(
                    f"{self._id}: expected within {seconds:g} s that {expected}; nothing is lost, "
                    "both secrets are accepted. Run rotate again to go on, or rotate --abort"
                )
            await asyncio.sleep(_POLL)

    def _plan(self, rotation: Rotation) -> list[str]:
        old = ", ".join(rotation.old_secrets)
        path = self._context.editor.path
        lines = [
            f"rotate the secret of {self._id} ({rotation.organization}) and refuse nothing:",
            f"  1. register {rotation.url} at Sellfern for {', '.join(rotation.events)}",
            f"  2. accept its secret in {path} beside the old ones (fingerprints {old})",
            "  3. enable it once every ingress has read the file",
            "  4. wait for a delivery that the new secret verifies"
            + (", after asking for a test delivery" if self._options.test else ""),
            f"  5. remove {rotation.old_id} at Sellfern",
            f"  6. let the old secrets end after {self._options.grace:g} s",
        ]
        gone = [
            secret.fingerprint
            for secret in self._context.editor.endpoints[self._id].secrets
            if not secret.is_active(time())
        ]
        if gone:
            lines.append(f"secrets that have ended leave the file: {', '.join(gone)}")
        return lines


def _is_retried(delivery: RemoteDelivery) -> bool:
    """Whether an attempt has failed and another one is planned, or under way."""
    under_way = delivery.status == "pending" and bool(delivery.attempts)
    return under_way or delivery.next_attempt_at is not None


def _going_back(rotation: Rotation) -> list[str]:
    which = rotation.new_id or rotation.url
    return [
        f"give up the rotation: remove {which} at Sellfern, and take its secret back",
        f"{rotation.old_id} stays as it is",
    ]


def _moment(seconds: float) -> datetime:
    """A whole second, not before the given one, since that is what people write."""
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=ceil(seconds))
