"""A job: its id, and arq's payload record of it, written as MessagePack.

The id is ``{organization}:{first 32 hex digits of the body's SHA-256}``, in a partition behind its
tag in braces.
"""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

import msgspec

from shared.errors import SellfernError
from shared.queue.keys import ORGANIZATION_PATTERN

FUNCTION = "handle_event"
"""The arq function that every delivery names."""

UNDECODABLE = "undecodable_job"
"""The arq function that buries a payload which is no record of this version."""

_DIGITS = 32
_DIGEST = re.compile(rf":[0-9a-f]{{{_DIGITS}}}\Z")

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def job_id(organization: str, body: bytes) -> str:
    """The job of these bytes: the same bytes for the same organization are one job."""
    return f"{organization}:{sha256(body).hexdigest()[:_DIGITS]}"


def is_job_of(job: str, organization: str, body: bytes, prefix: str = "") -> bool:
    """Whether it is what `job_id` makes of these, for an organization that may be one.

    Args:
        job: its id.
        organization: whose it is said to be.
        body: the bytes that it is said to carry.
        prefix: what the ids of all jobs of its partition begin with.
    """
    return job == prefix + job_id(organization, body) and _is_organization(organization)


def bears_digest(job: str) -> bool:
    """Whether a job's id names a body. A stock producer's needn't."""
    return _DIGEST.search(job) is not None


def organization_of(job: str, prefix: str = "") -> str:
    """The organization of a job, or an empty string for a job that none of ours made.

    Args:
        job: its id.
        prefix: what the ids of all jobs of its partition begin with. Another one's is a foreign
            name, as it is to the scripts.
    """
    organization, colon, _ = job.removeprefix(prefix).partition(":")
    return organization if colon and _is_organization(organization) else ""


@lru_cache(maxsize=1024)
def _is_organization(text: str) -> bool:
    """Asked once an event, and mostly of the same few."""
    return ORGANIZATION_PATTERN.fullmatch(text) is not None


class Delivery(msgspec.Struct, frozen=True):
    """One signed POST as it was received: what the ingress hands to the queue.

    Attributes:
        endpoint: id of the endpoint that it was sent to.
        organization: the endpoint's organization, bound by the secret that verified.
        received_at: when it came in, epoch milliseconds.
        headers: the few unsigned headers worth keeping; never trusted.
        body: the signed bytes, unparsed.
        weight: the organization's share under contention, 0.01 to 100.
        max_bytes: that the organization may hold in Redis; ``None`` is what holds for all, 0 is no
            limit.
    """

    endpoint: str
    organization: str
    received_at: int
    headers: dict[str, str]
    body: bytes
    weight: float = 1.0
    max_bytes: int | None = None


class _Call(msgspec.Struct):
    """arq's record of a call of ``handle_event``."""

    f: Literal["handle_event"]
    a: tuple[str, str, int, dict[str, str], bytes]
    k: dict[str, object]
    t: int | None
    et: int


_call_decoder = msgspec.msgpack.Decoder(_Call)


class PayloadError(SellfernError):
    """A payload is not a record that this version reads."""


class NewerPayloadError(PayloadError):
    """A payload is a record of ours with more in it than this version knows.

    In every deploy old workers run beside a new ingress. So a version may add arguments behind
    those that there are, and change nothing else; workers that don't know them leave the job to
    those that do.

    Attributes:
        delivery: what this version knows of it.
    """

    def __init__(self, message: str, delivery: Delivery) -> None:
        self.delivery = delivery
        super().__init__(message)


def serialize(record: dict[str, Any]) -> bytes:
    """Write arq's record ``{t, f, a, k, et}``; arq calls this as its ``job_serializer``."""
    return _encoder.encode(record)


def encode(delivery: Delivery) -> bytes:
    """The payload record of a delivery."""
    arguments = (
        delivery.endpoint,
        delivery.organization,
        delivery.received_at,
        delivery.headers,
        delivery.body,
    )
    return _encoder.encode(
        {"t": None, "f": FUNCTION, "a": arguments, "k": {}, "et": delivery.received_at}
    )


def deserialize(raw: bytes) -> dict[str, Any]:
    """Read arq's record; arq calls this as its ``job_deserializer``.

    Never raises: arq deletes a job whose payload raises here. What is not a record becomes a
    call of ``undecodable_job``, which buries it where someone can read it. Pickle is not read.
    """
    try:
        record = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        record = None
    if _is_record(record):
        return {**record, "a": tuple(record["a"])}
    return {"t": None, "f": UNDECODABLE, "a": (), "k": {}, "et": 0}


def _is_record(record: object) -> bool:
    return (
        isinstance(record, dict)
        and {"t", "f", "a", "k", "et"} <= record.keys()
        and isinstance(record["f"], str)
        and isinstance(record["a"], list)
        and isinstance(record["k"], dict)
        and all(isinstance(name, str) for name in record["k"])
        and isinstance(record["et"], int)
        and (record["t"] is None or isinstance(record["t"], int))
    )


def read(raw: bytes) -> Delivery | None:
    """The delivery in a payload, at once; ``None`` for whatever else it may be."""
    try:
        call = _call_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # Ours have no keyword arguments: that is a later version's, or somebody else's.
    return None if call.k else Delivery(*call.a)


def decode(raw: bytes) -> Delivery:
    """The delivery in a payload, with a reason where there is none.

    Raises:
        PayloadError: it is no arq record, calls another function, or its arguments are not ours.
    """
    record = deserialize(raw)
    if record["f"] != FUNCTION:
        raise PayloadError(f"expected a call of {FUNCTION}, got {record['f']!r:.80}")
    return from_arguments(record["a"])


def from_arguments(arguments: tuple[Any, ...] | list[Any]) -> Delivery:
    """The delivery in the arguments of ``handle_event``.

    Raises:
        PayloadError: they are not endpoint, organization, received-at, headers and body.
        NewerPayloadError: they are these, and more.
    """
    names = ("endpoint", "organization", "received_at", "headers", "body")
    # Before all else: what an old worker doesn't know it must not bury.
    if len(arguments) > len(names):
        known = from_arguments(arguments[: len(names)])
        raise NewerPayloadError(f"expected {len(names)} arguments, got {len(arguments)}", known)
    if len(arguments) != len(names):
        raise PayloadError(f"expected {len(names)} arguments, got {len(arguments)}")
    try:
        fields = dict(zip(names, arguments, strict=True))
        return msgspec.convert(fields, Delivery, builtin_types=(bytes,))  # bytes as they are
    except msgspec.ValidationError as exc:
        raise PayloadError(f"expected a delivery, got: {exc}") from exc
