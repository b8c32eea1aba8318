"""Handlers of which several do nothing, for tests of what is said about that."""

from typing import Any

from worker import Event, Handlers, Organization

handlers = Handlers()


handlers.ignore("order.created")


@handlers.on("order.paid")
@handlers.on("orders.*")
@handlers.on("order.updated", organization="org_c")
@handlers.on("order.updated")
async def handle(event: Event[Any], organization: Organization) -> None:
    """Do nothing."""
