"""The console's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from shared.errors import SettingsError
from shared.program.listening import Address, read_address
from shared.settings.config import CommonSettings
from shared.settings.reader import NOTHING, Reader
from shared.settings.secret import Secret
from worker.settings import WorkerSettings

_SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """What the console needs to be told.

    Attributes:
        common: what all programs need.
        address: where to listen.
        token: what people have to know to see and to act.
        read_token: what people have to know who may only look. Where neither is set, nobody has to
            know anything, and everybody may act.
        show_payloads: whether the bodies of events are shown.
        dedupe_retention: seconds for which a discarded event counts as handled.
    """

    common: CommonSettings
    address: Address
    token: Secret
    read_token: Secret
    show_payloads: bool
    dedupe_retention: float

    @classmethod
    def from_mapping(cls, environ: Mapping[str, str]) -> Self:
        """Read them from an environment.

        Raises:
            SettingsError: some are wrong, or others could get in without a token.
        """
        with Reader(environ) as reader:
            return cls.from_reader(reader)

    @classmethod
    def from_reader(cls, reader: Reader) -> Self:
        """Read them in its block."""
        worker = WorkerSettings.from_reader(reader)
        settings = cls(
            common=worker.common,
            address=read_address(reader, "CONSOLE", 9200),
            token=reader.secret("CONSOLE_TOKEN", ""),
            read_token=reader.secret("CONSOLE_READ_TOKEN", ""),
            show_payloads=reader.flag("CONSOLE_SHOW_PAYLOADS", default=False),
            dedupe_retention=worker.policy.limits.dedupe_retention,
        )
        if reader.are_good("CONSOLE_TOKEN", "CONSOLE_READ_TOKEN"):  # else called missing as well
            reader.note(lambda: settings._check_tokens(reader))
        return settings

    @property
    def asks(self) -> bool:
        """Whether people have to know a token."""
        return bool(self.token or self.read_token)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return all(map(is_loopback, self.address.hosts))

    def _check_tokens(self, reader: Reader) -> None:
        tokens = {"CONSOLE_TOKEN": self.token, "CONSOLE_READ_TOKEN": self.read_token}
        for name, token in tokens.items():
            length = len(token.reveal())
            if 0 < length < _SHORTEST_TOKEN:
                expected = f"at least {_SHORTEST_TOKEN} characters"
                raise SettingsError(reader.name_of(name), expected, f"{length} of them")
        if self.asks and self.token.reveal() == self.read_token.reveal():
            name = reader.name_of("CONSOLE_READ_TOKEN")
            raise SettingsError(name, "another token than CONSOLE_TOKEN's", "the same")
        if not self.asks and not self.is_loopback:
            raise SettingsError(
                "CONSOLE_TOKEN",
                f"a token of at least {_SHORTEST_TOKEN} characters, since CONSOLE_HOST "
                f"({','.join(self.address.hosts):.80}) can be reached from other machines",
                NOTHING,
            )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine only."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
