"""The endpoints that somebody's endpoints file names, registered here with the same secrets."""

import time
from dataclasses import dataclass

from deploy.sellfern.answer import Refused
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.endpoints.endpoint import Endpoint, Endpoints
from shared.errors import SettingsError
from shared.observe.logs import get_logger
from shared.sellfern import signature

_log = get_logger()


@dataclass(frozen=True, slots=True)
class KnownEndpoints:
    """An ingress whose endpoints are known from the start, so that nobody has to copy a secret.

    Attributes:
        endpoints: what its endpoints file says.
        ingress: its URL, up to ``/webhooks/``.
    """

    endpoints: Endpoints
    ingress: str

    def register(self, sellfern: Sellfern) -> None:
        """Register each endpoint for all events.

        Raises:
            SettingsError: one is of an organization that has no API key, or of one that has more
                endpoints than it may.
        """
        for endpoint in self.endpoints.values():
            if endpoint.organization_id not in sellfern.api_keys.organizations:
                expected = "endpoints of organizations that have an --api-key"
                raise SettingsError("--endpoints-file", expected, repr(endpoint.organization_id))
            self._register(sellfern, endpoint)

    def _register(self, sellfern: Sellfern, endpoint: Endpoint) -> None:
        secrets = endpoint.active(time.time())
        if endpoint.scheme != signature.SELLFERN or not secrets:  # only so can Sellfern sign
            _log.warning("endpoint_not_registered", endpoint=endpoint.id)
            return
        url = f"{self.ingress.rstrip('/')}/webhooks/{endpoint.id}"
        secret = secrets[0].value.reveal()
        try:
            sellfern.endpoints.create(endpoint.organization_id, url, EVENTS, secret=secret)
        except Refused as exc:
            raise SettingsError("--endpoints-file", str(exc), endpoint.organization_id) from exc
