"""What the shop does with its events."""

from collections.abc import AsyncIterator

import httpx
import msgspec

from worker import Event, Handlers, Id, Organization, Settings, Throttled

handlers = Handlers[httpx.AsyncClient]()


@handlers.lifespan
async def connected(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """One client of the ERP for all handlers."""
    token = {"Authorization": f"Bearer {settings['ERP_TOKEN']}"}
    async with httpx.AsyncClient(base_url=settings["ERP_URL"], headers=token, timeout=10) as erp:
        yield erp


class Order(msgspec.Struct):
    """An order, as far as the shop reads it."""

    order_id: Id
    status: str | None = None


@handlers.on("order.created")
async def order_created(
    event: Event[Order], organization: Organization, erp: httpx.AsyncClient
) -> None:
    """Book a new order: at least once, so the ERP gets a key to know a second time by."""
    answer = await erp.post(
        "/orders",
        json={"order": event.data.order_id, "organization": organization.id},
        headers={"Idempotency-Key": event.idempotency_key},
    )
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise Throttled.from_response(answer.headers)
    answer.raise_for_status()


@handlers.on("order.updated")
async def order_updated(event: Event[Order], organization: Organization) -> None:
    """Keep the latest status of each order, in whatever order the events come."""
    await organization.state.put_if_newer(
        f"orders/{event.data.order_id}", {"status": event.data.status}, version=event.created_at
    )
