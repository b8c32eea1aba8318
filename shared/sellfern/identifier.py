"""An id of the vendor's: text or a whole number on the wire, and text from there on."""

from typing import TYPE_CHECKING, Any, Final

MOST_DIGITS: Final = 256
"""Of an id that is a whole number; each of them counts, so none is ever rounded."""

if TYPE_CHECKING:
    Id = str
    """An id in a handler's own type: JSON text or a whole number, and text to the handler."""
else:

    class _Text(type):
        """Lets every text be an instance: what was decoded is plain text, of no class of ours."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, str)

    class Id(metaclass=_Text):
        """An id in a handler's own type: JSON text or a whole number, and text to the handler.

        ``Id(value)`` makes such a text of a value.

        Raises:
            ValueError: the value is neither.
        """

        def __new__(cls, value: object) -> str:
            """Make a text of a value."""
            return text(value)

        @classmethod
        def __get_pydantic_core_schema__(cls, *_: object) -> Any:
            """The same in a model of pydantic's, which asks for this."""
            from pydantic_core import core_schema  # noqa: PLC0415  # whoever asks has it

            return core_schema.no_info_plain_validator_function(text)


def text(value: object) -> str:
    """The id as text: ``123`` and ``"123"`` are the same one.

    A float is none, though it may look whole: it may have been rounded. To Python a bool is a
    whole number; to whoever wrote the JSON or TOML it isn't.

    Raises:
        ValueError: it is neither text nor a whole number of at most `MOST_DIGITS` digits; the
            message holds nothing of it.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        got = _KINDS.get(type(value), "object")
        raise ValueError(f"Expected `str | int`, got `{got}`")  # noqa: TRY004  # one kind to catch
    # The bits first: Python refuses to write a number of thousands of digits.
    if (
        value.bit_length() > 4 * MOST_DIGITS
        or len(digits := str(value)) - (value < 0) > MOST_DIGITS
    ):
        raise ValueError(f"Expected `int` of at most {MOST_DIGITS} digits")
    return digits


def decoded(kind: type, value: Any) -> Any:
    """Take an id out of what was decoded; for ``dec_hook`` of msgspec."""
    if kind is not Id:
        return value  # msgspec compares it with the type by itself
    return text(value)


_KINDS: Final = {
    type(None): "null",
    bool: "bool",
    float: "float",
    list: "array",
    dict: "object",
}
