"""The shop's ERP, in the place of a client that would talk to it over the network."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self


class BusyError(Exception):
    """The ERP has no time just now."""


class UnknownSkuError(Exception):
    """The ERP knows no such article, and won't tomorrow."""


@dataclass(slots=True)
class Erp:
    """Books orders; the same idempotency key books once, however often it comes.

    Attributes:
        url: where it is.
        booked: the order that each idempotency key booked.
        refusals: how many more bookings it has no time for.
    """

    url: str = ""
    booked: dict[str, str] = field(default_factory=dict)
    refusals: int = 1

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncGenerator[Self, None]:
        """Connect to it for a while."""
        yield cls(url)

    async def book(self, order_id: str, skus: list[str], *, token: str, key: str) -> str:
        """Book an order; the number of the booking.

        Raises:
            BusyError: another time it may work.
            UnknownSkuError: it never will.
        """
        if not token:
            raise PermissionError("the ERP asks for a token")
        if unknown := [sku for sku in skus if not sku.startswith("SKU-")]:
            raise UnknownSkuError(", ".join(unknown))
        if self.refusals:
            self.refusals -= 1
            raise BusyError
        self.booked.setdefault(key, order_id)
        return f"booking-{len(self.booked)}"
