"""Connections to Redis by TLS, with one context for all of them."""

import ssl
from pathlib import Path
from typing import Any

from redis.asyncio import Connection

from shared.errors import SettingsError
from shared.redis_url import Tls


class TlsConnection(Connection):
    """A connection that speaks TLS where it is given a context, else plainly.

    redis-py's own builds a context for each connection, trusts the system's authorities beside the
    one that it is told to trust, and doesn't look at the name on a certificate.

    Args:
        tls: the context; None: no TLS.
        options: those of redis-py's ``Connection``.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


def tls_context(tls: Tls, *, setting: str = "REDIS_URL") -> ssl.SSLContext:
    """Read the certificates.

    Args:
        tls: which.
        setting: the name to blame when one is wrong.

    Raises:
        SettingsError: one is not there, or is none.
    """
    context = _trusting(tls, setting)
    context.check_hostname = tls.check_hostname
    if tls.certfile is not None:
        try:
            context.load_cert_chain(tls.certfile, tls.keyfile)
        except OSError as exc:
            expected = "ssl_certfile and ssl_keyfile to be a certificate and its key in PEM form"
            got = f"{tls.certfile} and {tls.keyfile}: {_reason(exc)}"
            raise SettingsError(setting, expected, got) from None
    return context


def _trusting(tls: Tls, setting: str) -> ssl.SSLContext:
    if tls.ca_path is not None and not Path(tls.ca_path).is_dir():
        raise SettingsError(setting, "ssl_ca_path to be a folder of certificates", tls.ca_path)
    try:
        return ssl.create_default_context(cafile=tls.ca_certs, capath=tls.ca_path)
    except OSError as exc:
        expected = "ssl_ca_certs to be a file of certificates in PEM form"
        raise SettingsError(setting, expected, f"{tls.ca_certs}: {_reason(exc)}") from None


def _reason(exc: OSError) -> str:
    return exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else exc.strerror or str(exc)
