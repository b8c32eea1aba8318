"""Connections to Redis by TLS, by the certificates that lie on the disk when they are made."""

import ssl
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from redis.asyncio import Connection

from shared.errors import SettingsError
from shared.files.versions import stamp_of
from shared.redis.rereading import Reread
from shared.settings.redis_url import Tls

_NO_PASS_PHRASE: Final = ""
"""Else OpenSSL asks for the pass phrase of a key on the terminal, and the program stands still."""

_Stamp: TypeAlias = tuple[int, ...] | None


class TlsConnection(Connection):
    """A connection that speaks TLS where it is given certificates, else plainly.

    redis-py's own builds a context for each connection, trusts the system's authorities beside the
    one that it is told to trust, and doesn't look at the name on a certificate.

    Args:
        tls: the certificates; None: no TLS.
        options: those of redis-py's ``Connection``.
    """

    def __init__(self, *, tls: "Certificates | None" = None, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def _connection_arguments(self) -> dict[str, Any]:
        context = None if self._tls is None else self._tls.context()
        return {**super()._connection_arguments(), "ssl": context}


class Certificates:
    """Whom we trust and what we show, read again where a file has changed.

    Certificates are renewed on the disk while a program runs.

    Args:
        tls: which.

    Raises:
        SettingsError: one is not there, or is none.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._known = Reread[list[_Stamp], ssl.SSLContext](
            _stamps(tls),  # before the reading
            tls_context(tls),
            lambda _: tls_context(tls),
            reread="certificates_reread",
            refused="certificates_refused",
        )

    def context(self) -> ssl.SSLContext:
        """The context for the next connection; costs a few calls of stat while nothing is new."""
        return self._known.of(_stamps(self._tls))


@cache
def certificates(tls: Tls) -> Certificates:
    """Those of this process: all its pools go by the same, and what is wrong is said once.

    Raises:
        SettingsError: one is not there, or is none.
    """
    return Certificates(tls)


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
            context.load_cert_chain(tls.certfile, tls.keyfile, _NO_PASS_PHRASE)
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


def _stamps(tls: Tls) -> list[_Stamp]:
    """What changes with the files, behind whatever links they lie."""
    trusted = (tls.ca_certs, tls.ca_path)
    if trusted == (None, None):  # then they are the system's
        system = ssl.get_default_verify_paths()
        trusted = (system.cafile, system.capath)
    return [_stamp(path) for path in (*trusted, tls.certfile, tls.keyfile) if path is not None]


def _stamp(path: str) -> _Stamp:
    try:
        return stamp_of(path)
    except (OSError, ValueError):
        return None
