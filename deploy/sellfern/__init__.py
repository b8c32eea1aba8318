"""A Sellfern to develop against: its management API, and a deliverer of realistic events.

As a program: ``python -m deploy.sellfern --port 8090 --api-key sk_test_1:org_123``.

In a test::

    async with simulator("sk_a:org_a", "sk_b:org_b", attempts=3, backoff=0.01) as sellfern:
        sellfern.url                                    # the base URL: f"{url}/webhooks"
        endpoint = sellfern.endpoints.create("org_a", url, ("order.updated",), secret="whsec_1")
        sellfern.endpoints.of("org_a")                  # list of Endpoint, each with its secret
        await sellfern.deliver("order.updated", organization="org_a")      # waits: [Delivery]
        await sellfern.publish("order.updated", "org_a", {"order_id": "1"})  # doesn't wait
        await sellfern.settled()                        # waits until no delivery is pending
        sellfern.faults.add(Fault("cut", when="after", operation="POST /webhooks"))
        sellfern.requests                               # the management requests it has seen

The keywords are the fields of `SimulatorSettings`; ``clock=`` replaces the time, ``port=`` picks
the port. The OpenAPI document is at ``/openapi.json``; the same things as above can be done over
HTTP at ``/_control/faults``, ``/_control/events``, ``/_control/knobs``, ``/_control/requests``,
``/_control/endpoints`` and ``/_control/counts``. All state is in memory, and bounded.
"""

from deploy.sellfern.delivery import Attempt, Delivery
from deploy.sellfern.endpoint import Endpoint
from deploy.sellfern.event import Event
from deploy.sellfern.fault import Fault
from deploy.sellfern.server import simulator
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import Seen, Sellfern

__all__ = [
    "Attempt",
    "Delivery",
    "Endpoint",
    "Event",
    "Fault",
    "Seen",
    "Sellfern",
    "SimulatorSettings",
    "simulator",
]
