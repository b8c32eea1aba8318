"""Certificates of a small authority of one's own, made by the openssl program."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.tools import tool


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority's certificate, and one that it has signed with its key.

    Attributes:
        authority: whom to trust.
        certificate: for localhost and 127.0.0.1 where nothing else was asked for.
        key: its key.
    """

    authority: Path
    certificate: Path
    key: Path

    @property
    def client_options(self) -> str:
        """What a URL says to trust the authority and to show the certificate."""
        return (
            f"ssl_ca_certs={self.authority}&ssl_certfile={self.certificate}&ssl_keyfile={self.key}"
        )

    def server_settings(self, port: int) -> dict[str, str]:
        """The settings by which a Redis speaks TLS on a port."""
        return {
            "tls-port": str(port),
            "tls-ca-cert-file": str(self.authority),
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }


def make_certificates(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificates:
    """Make an authority, and a certificate for these names.

    Args:
        folder: where to.
        names: as openssl writes them.
    """
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority_key = folder / "ca-key.pem"
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(*new, "-subj", "/CN=authority", "-keyout", authority_key, "-out", made.authority)
    _openssl(
        *new,
        *("-subj", "/CN=redis", "-keyout", made.key, "-out", made.certificate),
        *("-CA", made.authority, "-CAkey", authority_key),
        *("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:false"),
    )
    return made


def overwrite(certificates: Certificates, others: Certificates) -> None:
    """Put the others' files in the place of these, as whoever renews them does."""
    for place, file in zip(_files(certificates), _files(others), strict=True):
        place.write_bytes(file.read_bytes())


def _files(certificates: Certificates) -> tuple[Path, Path, Path]:
    return certificates.authority, certificates.certificate, certificates.key


def _openssl(*words: str | Path) -> None:
    subprocess.run([tool("openssl"), *map(str, words)], check=True, capture_output=True)
