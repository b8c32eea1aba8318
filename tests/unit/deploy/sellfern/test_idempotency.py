"""Facts about idempotency keys."""

import asyncio

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from deploy.sellfern import idempotency
from deploy.sellfern.answer import REPLAYED, Answer, Refused
from deploy.sellfern.idempotency import HEADER, LIFE_SECONDS, Idempotency, fingerprint
from tests.unit.deploy.sellfern.hand_clock import HandClock


class Effects:
    """Has effects and counts them."""

    def __init__(self) -> None:
        self.number = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Answer:
        self.number += 1
        await self.gate.wait()
        return Answer(201, b"effect %d" % self.number)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def keys(clock: HandClock) -> Idempotency:
    return Idempotency(clock)


def headers(*given: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([(HEADER, key) for key in given]))


async def test_the_same_request_gets_the_first_answer_and_has_no_effect(keys: Idempotency) -> None:
    effects = Effects()
    first = await keys.once("org_a", "k", b"request", effects)
    second = await keys.once("org_a", "k", b"request", effects)
    assert (second.status, second.body) == (first.status, first.body) == (201, b"effect 1")
    assert (first.headers.get(REPLAYED), second.headers.get(REPLAYED)) == (None, "true")
    assert effects.number == 1


async def test_another_request_with_the_key_is_a_conflict(keys: Idempotency) -> None:
    effects = Effects()
    await keys.once("org_a", "k", b"request", effects)
    with pytest.raises(Refused) as refused:
        await keys.once("org_a", "k", b"another", effects)
    assert (refused.value.status, refused.value.code) == (422, "idempotency_conflict")
    assert effects.number == 1


async def test_a_key_is_one_organizations(keys: Idempotency) -> None:
    effects = Effects()
    await keys.once("org_a", "k", b"request", effects)
    await keys.once("org_b", "k", b"another", effects)
    assert effects.number == 2


async def test_a_key_lives_for_a_day(keys: Idempotency, clock: HandClock) -> None:
    effects = Effects()
    await keys.once("org_a", "k", b"request", effects)
    clock.now += LIFE_SECONDS - 0.001
    assert (await keys.once("org_a", "k", b"request", effects)).body == b"effect 1"
    clock.now += 0.001
    assert (await keys.once("org_a", "k", b"another", effects)).body == b"effect 2"
    assert len(keys) == 1


async def test_two_at_once_have_one_effect(keys: Idempotency) -> None:
    effects = Effects()
    effects.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(keys.once("org_a", "k", b"request", effects)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="idempotency_conflict"):
            await keys.once("org_a", "k", b"another", effects)
        effects.gate.set()
    assert [task.result().body for task in both] == [b"effect 1", b"effect 1"]
    assert effects.number == 1


async def test_after_an_effect_that_failed_the_next_one_is_the_first(keys: Idempotency) -> None:
    async def fail() -> Answer:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # it is the one raised above
        await keys.once("org_a", "k", b"request", fail)
    assert (await keys.once("org_a", "k", b"request", Effects())).body == b"effect 1"


async def test_the_oldest_key_goes_when_there_are_too_many(
    keys: Idempotency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MOST", 3)
    effects = Effects()
    for number in range(4):
        await keys.once("org_a", f"k{number}", b"request", effects)
    assert len(keys) == 3
    assert (await keys.once("org_a", "k1", b"request", effects)).body == b"effect 2"
    assert (await keys.once("org_a", "k0", b"request", effects)).body == b"effect 5"


@pytest.mark.parametrize("key", ["k", "k" * 255])
def test_a_key_has_1_to_255_characters(key: str) -> None:
    assert idempotency.read_key(headers(key), required=True) == key


@pytest.mark.parametrize("given", [("",), ("k" * 256,), ("k", "k")])
def test_another_key_is_a_validation_error(given: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as refused:
        idempotency.read_key(headers(*given), required=False)
    assert (refused.value.status, refused.value.code) == (400, "validation_error")


def test_no_key_is_an_error_only_where_one_is_required() -> None:
    assert idempotency.read_key(headers(), required=False) is None
    with pytest.raises(Refused):
        idempotency.read_key(headers(), required=True)


def test_the_layout_of_json_makes_no_other_request() -> None:
    first = fingerprint("POST", "/webhooks", b'{"a":1,"b":[2]}')
    assert fingerprint("POST", "/webhooks", b'{ "b": [2], "a": 1 }') == first


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/webhooks", b'{"a":1}'),
        ("POST", "/webhooks/1", b'{"a":1}'),
        ("POST", "/webhooks", b'{"a":2}'),
        ("POST", "/webhooks", b"{"),
        ("POST", "/webhooks", b"\xff"),
        ("POST", "/webhooks", b"[" * 100_000),
    ],
)
def test_another_method_path_or_body_makes_another_request(
    method: str, path: str, body: bytes
) -> None:
    assert fingerprint(method, path, body) != fingerprint("POST", "/webhooks", b'{"a":1}')
    assert fingerprint(method, path, body) == fingerprint(method, path, body)
