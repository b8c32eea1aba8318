"""Decodes an event's data to the type that a handler names."""

from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import inspect

from shared.observe import metrics
from shared.sellfern import identifier
from shared.sellfern.envelope import decoded
from shared.sellfern.identifier import Id

_MOST_TOLD: Final = 3
"""Fields of which a model's error tells."""

_JSON: Final[tuple[object, ...]] = (None, True, 1, 1.0, "", [], {})
"""One of each kind of value that JSON has."""


class DataDecoder:
    """Decodes to one type, in which `Id` takes text and whole numbers.

    Where it is one of pydantic's, or made of such, pydantic decodes it. A field of another type may
    be a model as well.

    Args:
        data_type: what the handler's annotation says.

    Attributes:
        type: that one.
        strictly: the data in JSON that is as it should be; nothing of Python's is in between.

    Raises:
        TypeError: nothing that is an object in JSON can be decoded to it.
    """

    def __init__(self, data_type: Any = Any) -> None:
        self.type = data_type
        self.strictly: Callable[[bytes | msgspec.Raw], Any]
        self._is_pydantics = any(map(_is_model, _parts(data_type)))
        if self._is_pydantics:
            self.strictly = _by_pydantic(data_type)
            return
        self.strictly = msgspec.json.Decoder(data_type, dec_hook=_taken).decode
        _refuse_undecodable(data_type)

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """The data in JSON; broken text in it is mended, but only where it can't be read as it is.

        Raises:
            msgspec.DecodeError: it is not of the type, or no JSON.
            RecursionError: it is nested too deeply.
        """
        data, was_mended = decoded(self.strictly, raw)
        if was_mended:
            metrics.MENDED.labels("data").inc()
        return data

    def fields(self) -> Collection[str] | None:
        """The names in JSON of what the type has; ``None`` where that isn't known."""
        if self._is_pydantics:
            return _fields_of_model(self.type)
        match inspect.type_info(self.type):
            case (
                inspect.StructType(fields=fields)
                | inspect.DataclassType(fields=fields)
                | inspect.TypedDictType(fields=fields)
            ):
                return frozenset(each.encode_name for each in fields)
        return None


def _taken(kind: type, value: Any) -> Any:
    """A value of a type that msgspec doesn't know; for its ``dec_hook``."""
    if not _is_model(kind):
        return identifier.decoded(kind, value)
    import pydantic  # noqa: PLC0415  # no dependency: who names a model has it

    try:
        # As JSON, in which a strict model takes a text for a time.
        return _adapter(kind).validate_json(msgspec.json.encode(value))
    except pydantic.ValidationError as exc:
        raise ValueError(_first_of(exc)) from None


# pydantic's models


def _is_model(kind: object) -> bool:
    """Whether it is a class that pydantic has made, a model or one of its data classes."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


@cache
def _adapter(model: type) -> Any:
    """Decodes a part that is a model; to make one costs more than to use it."""
    import pydantic  # noqa: PLC0415

    return pydantic.TypeAdapter(model)


def _fields_of_model(model: Any) -> Collection[str] | None:
    """The names in JSON of a model's fields, where each has one alone."""
    if not (_is_model(model) and hasattr(model, "model_fields")) or model.__pydantic_root_model__:
        return None
    fields, config = model.model_fields, model.model_config
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return None
    names = [each.validation_alias or name for name, each in fields.items()]
    return frozenset(names) if all(type(name) is str for name in names) else None


def _parts(data_type: Any) -> Iterator[Any]:
    """A type, and those of which it is put together by `Union`, `list` and the like."""
    yield data_type
    origin = get_origin(data_type)
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return  # which pydantic doesn't know
    for part in get_args(data_type):
        yield from _parts(part)


def _by_pydantic(data_type: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    import pydantic  # noqa: PLC0415

    try:
        adapter: Any = pydantic.TypeAdapter(data_type)
        # A name that nobody has defined would be found out with the first event.
        adapter.rebuild(raise_errors=True)
    except (pydantic.PydanticUserError, NameError) as exc:
        raise TypeError(str(exc).split("\n", 1)[0]) from exc

    def decode(raw: bytes | msgspec.Raw) -> Any:
        try:
            return adapter.validate_json(bytes(raw))
        except pydantic.ValidationError as exc:
            is_no_json = exc.errors(include_input=False)[0]["type"] == "json_invalid"
            kind = msgspec.DecodeError if is_no_json else msgspec.ValidationError
            raise kind(_told(exc)) from None

    return decode


def _told(error: Any) -> str:
    """What pydantic says, in msgspec's words: places and reasons, but nothing of what is there."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{each['msg']} - at `{_place(each['loc'])}`" for each in errors[:_MOST_TOLD]]
    more = len(errors) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _first_of(error: Any) -> str:
    """The same for a part, of whose place msgspec tells by itself."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{first['msg']} - at `{_place(first['loc'])}` of it"


def _place(parts: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{each}]" if type(each) is int else f".{each}" for each in parts)


# Types that can't be


def _refuse_undecodable(data_type: Any) -> None:
    """Refuse what no event could ever be decoded to: it would be found out one by one."""
    found = inspect.type_info(data_type)
    if not _takes_object(found):
        raise TypeError("an event's data is always an object in JSON")
    for each in _needed(found, set()):
        if isinstance(each, inspect.CustomType) and not _is_decodable(each.cls):
            raise TypeError(f"{each.cls.__name__} is no type that JSON has")


def _takes_object(found: inspect.Type) -> bool:
    match found:
        case inspect.UnionType(types=types):
            return any(map(_takes_object, types))
        case inspect.StructType(array_like=is_array):
            return not is_array
        case inspect.CustomType(cls=cls):
            # What is neither is refused by its name.
            return cls is not Id
        case inspect.Metadata(type=inner):
            return _takes_object(inner)
    return isinstance(
        found,
        inspect.AnyType
        | inspect.RawType
        | inspect.DictType
        | inspect.FrozenDictType
        | inspect.DataclassType
        | inspect.TypedDictType,
    )


def _needed(found: inspect.Type, seen: set[int]) -> Iterator[inspect.Type]:
    """A type and all that a value of it has to have; what has a default isn't."""
    if id(found) in seen:  # a type may hold itself
        return
    seen.add(id(found))
    yield found
    for each in _inner(found):
        yield from _needed(each, seen)


def _inner(found: inspect.Type) -> Iterator[inspect.Type]:
    match found:
        case (
            inspect.StructType(fields=fields)
            | inspect.DataclassType(fields=fields)
            | inspect.TypedDictType(fields=fields)
            | inspect.NamedTupleType(fields=fields)
        ):
            yield from (each.type for each in fields if each.required)
        case (
            inspect.DictType(key_type=key, value_type=value)
            | inspect.FrozenDictType(key_type=key, value_type=value)
        ):
            yield from (key, value)
        case inspect.TupleType(item_types=types) | inspect.UnionType(types=types):
            yield from types
        case inspect.CollectionType(item_type=item):
            yield item
        case inspect.Metadata(type=inner):
            yield inner


def _is_decodable(kind: type) -> bool:
    """Whether a value from JSON can be one: msgspec takes what is an instance as it is."""
    if kind is Id or _is_model(kind):
        return True
    try:
        return any(isinstance(each, kind) for each in _JSON)
    except TypeError:  # a protocol of which nobody can ask that
        return False
