"""The handlers of the demo, as a module of one's own would have them.

They keep the project's projection of orders, count each event that changes it, reject what is no
status of an order, and fail on some orders until the third attempt.
"""

from deploy.local.traffic import FAILURES, FLAKY_PREFIX, STATUSES
from worker import Event, Handlers, Organization, Reject
from worker.handlers.orders import OrderChange, order_changed

handlers = Handlers()


@handlers.on("order.*")
async def order_event(event: Event[OrderChange], organization: Organization) -> None:
    """Apply the event to its order."""
    check_status(event.data.status)
    if event.data.order_id.startswith(FLAKY_PREFIX):
        call_flaky_service(event)
    await order_changed(event, organization)
    await organization.state.increment(f"applied/{event.id}")
    if event.attempt > 1:
        await organization.state.put(f"attempts/{event.id}", event.attempt)


def check_status(status: str | None) -> None:
    """No further attempt could help an event whose status is none."""
    if status is not None and status not in STATUSES:
        raise Reject(f"expected one of {', '.join(STATUSES)}, got {status!r:.40}")


def call_flaky_service(event: Event[OrderChange]) -> None:
    """Stand for a call to somebody's service that fails for a while."""
    if event.attempt <= FAILURES:
        raise ConnectionError("the warehouse doesn't answer")
