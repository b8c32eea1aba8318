"""The ingress with spans around what it does; used only where ``TRACING`` asks for it."""

from collections.abc import Sequence

from aiohttp import web

from ingress.clients import Network
from ingress.http.receive import Receiver, Writer, endpoint_id
from ingress.http.site import Site
from shared.observe.tracing import Tracing
from shared.queue.job import Delivery
from shared.queue.writer import Accepted

_MOST_NAME = 64  # of an endpoint that a client may have made up


class TracedSite(Site):
    """Answers each request within a span."""

    def __init__(
        self, receiver: Receiver, tracing: Tracing, trusted: Sequence[Network] = ()
    ) -> None:
        super().__init__(receiver, trusted)
        self._tracing = tracing

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; never raises but when it is cancelled."""
        with self._tracing.request((endpoint_id(request) or "")[:_MOST_NAME]) as span:
            response = await super().answer(request)
            span.set_attribute("http.response.status_code", response.status)
            return response

    def refused_at_once(self, request: web.BaseRequest, body: bytes) -> bytes | None:  # noqa: ARG002
        """Leave it to `answer`, which has a span."""
        return None


class TracedWriter:
    """Sends the trace along with each delivery.

    Args:
        writer: stores deliveries durably.
        tracing: makes the spans.
    """

    def __init__(self, writer: Writer, tracing: Tracing) -> None:
        self._writer = writer
        self._tracing = tracing

    async def accept(self, delivery: Delivery) -> Accepted:
        """Store one, as the writer does."""
        # Among the kept headers, so that no record in the queue gets another form for it.
        delivery.headers.update(self._tracing.carry())
        with self._tracing.step("enqueue"):
            return await self._writer.accept(delivery)
