"""The management API over HTTP."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from deploy.sellfern import answer, idempotency, openapi
from deploy.sellfern.answer import Answer, Refused, invalid
from deploy.sellfern.api_key import MANAGE
from deploy.sellfern.endpoint import Endpoint, read_draft
from deploy.sellfern.fault import suffer
from deploy.sellfern.openapi import OPERATIONS, Operation
from deploy.sellfern.vendor import EVENTS, Seen, Sellfern

MOST_LISTED: Final = 100
_LISTED: Final = 50
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_MISFITS: Final = {
    HTTPStatus.NOT_FOUND.value: ("not_found", "there is no such resource"),
    HTTPStatus.METHOD_NOT_ALLOWED.value: ("method_not_allowed", "the Allow header says which is"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value: ("payload_too_large", "the body is too large"),
}


class Management:
    """Answers management requests.

    Args:
        sellfern: what they show and change.
    """

    def __init__(self, sellfern: Sellfern) -> None:
        self._sellfern = sellfern
        self._does: dict[Operation, Callable[[str, web.Request], Awaitable[object]]] = {
            openapi.CREATE: self._create,
            openapi.LIST: self._list,
            openapi.CHANGE: self._change,
            openapi.REMOVE: self._remove,
            openapi.TEST: self._test,
            openapi.DELIVERIES: self._deliveries,
        }

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Put every operation at its place."""
        for each in OPERATIONS:
            # Not by `web.get`: it would answer HEAD as well, which nothing documents.
            router.add_route(each.method, each.path, partial(self._respond, each))

    async def _respond(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        """Answer a request, unless a fault hits it."""
        fault = self._sellfern.faults.take(operation.method, operation.name)
        # Before the request is even read: what is cut off here has had no effect for sure.
        if fault is not None and fault.when == "before":
            self._note(request, fault.kind)
            return await suffer(fault, request, self._sellfern.closing)
        # The effect, and then the fault: the client can't know that it was done, which is what its
        # journal is for.
        done = await self._answer(operation, request)
        if fault is not None:
            self._note(request, fault.kind)
            return await suffer(fault, request, self._sellfern.closing)
        self._note(request, str(done.status))
        return done.response()

    def _note(self, request: web.Request, outcome: str) -> None:
        key = request.headers.get(idempotency.HEADER)
        if key is not None:  # bytes that are no text stand in it as lone surrogates
            key = key.encode("utf-8", "backslashreplace").decode()
        self._sellfern.requests.append(Seen(request.method, request.path_qs, key, outcome))

    async def _answer(self, operation: Operation, request: web.Request) -> Answer:
        try:
            organization = self._admit(request)
            # Whatever it is for, one that is too large is refused; aiohttp keeps what it has read.
            body = await request.read()
            key = self._idempotency_key(operation, request)
            perform = partial(self._perform, operation, organization, request)
            if key is None:
                return await perform()
            print_ = idempotency.fingerprint(request.method, request.path_qs, body)
            return await self._sellfern.idempotency.once(organization, key, print_, perform)
        except Refused as exc:
            return answer.refused(exc)

    def _admit(self, request: web.Request) -> str:
        """The organization of a request, if its key may do this and it doesn't come too often."""
        sellfern = self._sellfern
        api_key = sellfern.api_keys.authenticate(request.headers)
        # Counted by key before its scope is looked at: a refused request has come all the same.
        sellfern.quota.take(api_key.key.reveal())
        api_key.require(MANAGE)
        return api_key.organization

    def _idempotency_key(self, operation: Operation, request: web.Request) -> str | None:
        if not operation.writes:
            return None
        required = self._sellfern.settings.require_idempotency_key
        return idempotency.read_key(request.headers, required=required)

    async def _perform(
        self, operation: Operation, organization: str, request: web.Request
    ) -> Answer:
        """Have the effect; a refusal is an answer too, and is the first one to its key."""
        # Inside of what an idempotency key holds together, so that two of one key do meet.
        await asyncio.sleep(self._sellfern.settings.latency)
        try:
            data = await self._does[operation](organization, request)
        except Refused as exc:
            return answer.refused(exc)
        return answer.success(data, operation.status)

    async def _create(self, organization: str, request: web.Request) -> object:
        draft = read_draft(await request.read(), EVENTS, complete=True)
        endpoint = self._sellfern.endpoints.create(
            organization,
            draft.url or "",
            draft.events or (),
            enabled=draft.enabled is not False,
        )
        if self._sellfern.settings.hide_secret:
            return endpoint.shown()
        return endpoint.shown() | {"secret": endpoint.secret.reveal()}

    async def _list(self, organization: str, _: web.Request) -> object:
        return [each.shown() for each in self._sellfern.endpoints.of(organization)]

    async def _change(self, organization: str, request: web.Request) -> object:
        endpoint = self._endpoint(organization, request)
        draft = read_draft(await request.read(), EVENTS, complete=False)
        return self._sellfern.endpoints.change(endpoint, draft).shown()

    async def _remove(self, organization: str, request: web.Request) -> object:
        endpoint = self._endpoint(organization, request)
        self._sellfern.endpoints.remove(endpoint)
        return {"id": endpoint.id, "deleted": True}

    async def _test(self, organization: str, request: web.Request) -> object:
        return (await self._sellfern.test(organization, request.match_info["id"])).shown()

    async def _deliveries(self, organization: str, request: web.Request) -> object:
        endpoint = self._endpoint(organization, request)
        most = _limit(request.query)
        return [each.shown() for each in self._sellfern.deliveries.to(endpoint.id)[:most]]

    def _endpoint(self, organization: str, request: web.Request) -> Endpoint:
        return self._sellfern.endpoints.get(organization, request.match_info["id"])


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(_LISTED))
    # By its digits: int() takes signs, spaces and other scripts' digits.
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= MOST_LISTED:
        raise invalid("limit is out of range", ("query limit", f"expected 1 to {MOST_LISTED}"))
    return int(text)


@web.middleware
async def in_our_shape(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what aiohttp refuses (no such path, method, too large) as Sellfern would."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        # A redirect is an exception in aiohttp, too.
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        code, message = _MISFITS.get(exc.status, ("bad_request", "this is not a valid request"))
        allowed = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        refusal = Refused(HTTPStatus(exc.status), code, message, headers=allowed)
        return answer.refused(refusal).response()
