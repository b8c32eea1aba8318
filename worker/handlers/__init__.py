"""The project's own handlers: a projection of each organization's orders."""

from worker.handlers import orders
from worker.registry import Handlers

handlers = Handlers()
orders.register(handlers)
