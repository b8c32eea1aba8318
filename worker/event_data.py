"""Decodes an event's data to the type that its handler asks for."""

from typing import Any

import msgspec

from shared.observe import metrics
from shared.sellfern import identifier
from shared.sellfern.envelope import mended


class DataDecoder:
    """Decodes to one type, in which `Id` takes text and whole numbers.

    Args:
        data_type: what the handler's annotation says.

    Raises:
        TypeError: it can't be decoded from JSON.
    """

    def __init__(self, data_type: Any = Any) -> None:
        self._decoder = msgspec.json.Decoder(data_type, dec_hook=identifier.decoded)

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """The data in JSON; broken text in it is mended, but only where it can't be read as it is.

        Raises:
            msgspec.DecodeError: it is not of the type, or no JSON.
            RecursionError: it is nested too deeply.
        """
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError:
            raise  # it is readable
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = mended(bytes(raw))
            if text == bytes(raw):
                raise
        data = self._decoder.decode(text)
        metrics.MENDED.labels("data").inc()
        return data
