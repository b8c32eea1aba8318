"""What is waited for after a batch, and which reply says that it is durable."""

import pytest

from shared.errors import Unavailable
from shared.queue.writer import check_reply, wait_commands
from shared.redis.durability import Durability, Mode


@pytest.mark.parametrize(
    ("durability", "commands"),
    [
        (Durability(), [("WAITAOF", 1, 0, 2000)]),
        (Durability(Mode.FSYNC, timeout=0.25), [("WAITAOF", 1, 0, 250)]),
        (Durability(Mode.FSYNC, replicas=3), [("WAITAOF", 1, 0, 2000)]),
        (Durability(Mode.FSYNC, asserted=True), []),
        (Durability(Mode.REPLICA, timeout=0.25), [("WAIT", 1, 250)]),
        (Durability(Mode.REPLICA, replicas=3), [("WAIT", 3, 2000)]),
        (Durability(Mode.REPLICA, asserted=True), [("WAIT", 1, 2000)]),
        (Durability(Mode.REPLICA, fails_over=True), [("WAIT", 1, 2000)]),
        (Durability(Mode.MEMORY), []),
        (Durability(Mode.MEMORY, fails_over=True), []),
    ],
)
def test_what_is_waited_for_follows_from_the_mode(
    durability: Durability, commands: list[tuple[str | int, ...]]
) -> None:
    assert list(wait_commands(durability)) == commands


@pytest.mark.parametrize("asserted", [False, True])  # nobody can vouch for a replica's disk
def test_where_a_replica_may_become_the_primary_its_disk_is_waited_for(*, asserted: bool) -> None:
    durability = Durability(Mode.FSYNC, replicas=2, asserted=asserted, fails_over=True)
    assert wait_commands(durability) == (("WAIT", 2, 500), ("WAITAOF", 1, 2, 1500))


@pytest.mark.parametrize("mode", [Mode.FSYNC, Mode.REPLICA])
def test_no_timeout_is_rounded_to_0_which_would_wait_for_ever(mode: Mode) -> None:
    for fails_over in (False, True):
        commands = wait_commands(Durability(mode, timeout=0.0001, fails_over=fails_over))
        assert {command[-1] for command in commands} == {1}


@pytest.mark.parametrize(
    ("durability", "reply"),
    [
        (Durability(Mode.FSYNC), [1, 0]),
        (Durability(Mode.FSYNC), [1, 5]),
        (Durability(Mode.FSYNC, replicas=2, fails_over=True), [1, 2]),
        (Durability(Mode.REPLICA), 1),
        (Durability(Mode.REPLICA, replicas=2), 3),
        (Durability(Mode.MEMORY), None),
    ],
)
def test_a_reply_of_enough_is_durable(durability: Durability, reply: object) -> None:
    check_reply(durability, reply)


@pytest.mark.parametrize(
    ("durability", "reply", "message"),
    [
        (
            Durability(Mode.FSYNC),
            [0, 0],
            "not_synced: the append-only file was not synced in time",
        ),
        (
            Durability(Mode.FSYNC),
            [0, 1],  # a replica's disk is not the primary's
            "not_synced: the append-only file was not synced in time",
        ),
        (
            Durability(Mode.FSYNC, replicas=2, fails_over=True),
            [1, 1],
            "not_replicated: 1 of 2 replicas synced their append-only file in time",
        ),
        (
            Durability(Mode.FSYNC, fails_over=True),
            [0, 2],
            "not_synced: the append-only file was not synced in time",
        ),
        (
            Durability(Mode.REPLICA),
            0,
            "not_replicated: 0 of 1 replicas acknowledged in time",
        ),
        (
            Durability(Mode.REPLICA, replicas=3),
            2,
            "not_replicated: 2 of 3 replicas acknowledged in time",
        ),
    ],
)
def test_a_reply_of_too_few_is_unavailable(
    durability: Durability, reply: object, message: str
) -> None:
    with pytest.raises(Unavailable) as caught:
        check_reply(durability, reply)
    assert str(caught.value) == message


def test_the_modes_are_named_as_the_setting_names_them() -> None:
    assert [Mode(name) for name in ("fsync", "replica", "memory")] == list(Mode)
