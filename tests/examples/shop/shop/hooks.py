"""What the shop does with its events."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec

from shop.erp import BusyError, Erp, UnknownSkuError
from worker import Event, Handlers, Id, Organization, Reject, Retry, Secret, Settings

handlers = Handlers[Erp]()

KEPT = timedelta(days=90)


class Item(msgspec.Struct):
    """A line of an order."""

    sku: str
    quantity: int


class Order(msgspec.Struct):
    """An order, as far as the shop reads it."""

    order_id: Id
    status: str | None = None
    items: list[Item] = []


@handlers.lifespan
async def connected(settings: Settings) -> AsyncIterator[Erp]:
    """Connect to the ERP once for all handlers."""
    async with Erp.connected(settings.get("ERP_URL", "erp.test")) as erp:
        yield erp


@handlers.on("order.*")
async def order_changed(event: Event[Order], organization: Organization) -> None:
    """Keep the latest status of each order, in whatever order the events come."""
    order = event.data
    await organization.state.put_if_newer(
        f"orders/{order.order_id}",
        {"status": order.status, "by": event.type},
        version=event.created_at,
        expire=KEPT,
    )


@handlers.on("order.created")
async def order_created(
    event: Event[Order], organization: Organization, erp: Erp
) -> Retry | Reject | None:
    """Book a new order in the ERP, and count it."""
    order = event.data
    token = organization.settings["erp_token"]
    if not isinstance(token, Secret):
        return Reject(f"erp_token: expected a secret, got {type(token).__name__}")
    try:
        booking = await erp.book(
            order.order_id,
            [item.sku for item in order.items],
            token=token.reveal(),
            key=event.idempotency_key,
        )
    except BusyError:
        return Retry(after=timedelta(milliseconds=50), why="the ERP is busy")
    except UnknownSkuError as exc:
        return Reject(f"the ERP knows no {exc}")
    await organization.state.put(f"bookings/{order.order_id}", booking)
    await organization.state.increment("created", by=1)
    organization.log.info("order_booked", order=order.order_id, booking=booking)
    return None


handlers.ignore("ticket.*")
