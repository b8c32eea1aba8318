"""Facts about `Database.once`: an event's work and its row of the inbox are one commit."""

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.integration.sql.shop import Line, Shop, Stock, event, opened_shop, organization, save
from worker import Event, HandlerError, Reject
from worker.sql import database as databases


async def test_the_first_attempt_writes_and_later_ones_find_it_written(shop: Shop) -> None:
    assert await shop.once() is True
    assert await shop.once() is False
    assert await shop.lines() == 1
    assert await shop.entries() == {("org_a", "evt_1", "")}


async def test_equal_ids_of_two_organizations_are_two_events(shop: Shop) -> None:
    assert await shop.once(name="org_a") is True
    assert await shop.once(name="org_b") is True
    assert await shop.lines() == 2


async def test_what_fails_leaves_nothing_and_the_next_attempt_writes(shop: Shop) -> None:
    async def fail(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await shop.once(do=fail)
    assert (await shop.lines(), await shop.entries()) == (0, set())
    assert await shop.once() is True


async def test_a_decision_that_is_returned_counts_as_one_that_is_raised(shop: Shop) -> None:
    async def reject(session: AsyncSession, event: Event[Any]) -> Any:
        await save(session, event)
        return Reject("no")

    with pytest.raises(Reject):
        await shop.once(do=reject)
    assert await shop.lines() == 0


async def test_a_save_that_is_no_coroutine_function_is_told(shop: Shop) -> None:
    with pytest.raises(HandlerError, match="async def"):
        await shop.once(do=lambda *_: None)  # type: ignore[arg-type]
    assert await shop.entries() == set()


async def test_of_two_workers_at_once_one_waits_and_finds_it(shop: Shop) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        begun.set()
        await may_end.wait()

    async with opened_shop(shop.url) as other:
        first = asyncio.create_task(shop.once(do=slowly))
        await begun.wait()
        second = asyncio.create_task(other.once())
        done, _ = await asyncio.wait({second}, timeout=0.2)
        assert not done
        may_end.set()
        assert [await first, await second] == [True, False]
    assert await shop.lines() == 1


async def test_where_the_first_of_two_fails_the_second_writes(shop: Shop) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def fail(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        begun.set()
        await may_end.wait()
        raise ValueError

    async with opened_shop(shop.url) as other:
        first = asyncio.create_task(shop.once(do=fail))
        await begun.wait()
        second = asyncio.create_task(other.once())
        may_end.set()
        with pytest.raises(ValueError):  # noqa: PT011  it has no message
            await first
        assert await second is True
    assert await shop.lines() == 1


async def test_parts_of_an_event_are_done_once_each(shop: Shop) -> None:
    for expected in (True, False):
        ours = organization()
        for part in ("", "invoice", "letter"):
            done = await shop.database.once(event(), ours, save, part=part)
            assert done is expected
    assert await shop.lines() == 3


async def test_a_part_twice_in_one_attempt_is_an_error(shop: Shop) -> None:
    ours = organization()
    await shop.database.once(event(), ours, save)
    with pytest.raises(HandlerError, match="part '' of this event is done"):
        await shop.database.once(event(), ours, save)
    assert await shop.lines() == 1


async def test_a_part_that_failed_may_be_tried_again_in_the_same_attempt(shop: Shop) -> None:
    async def fail(_session: AsyncSession, _event: Event[Any]) -> None:
        raise ValueError

    ours = organization()
    with pytest.raises(ValueError):  # noqa: PT011  it has no message
        await shop.database.once(event(), ours, fail)
    assert await shop.database.once(event(), ours, save) is True


async def test_another_organizations_event_is_refused(shop: Shop) -> None:
    with pytest.raises(HandlerError, match="expected an event of org_b"):
        await shop.database.once(event(), organization("org_b"), save)


async def test_the_works_own_unique_violation_is_raised_as_it_is(shop: Shop) -> None:
    async def twice(session: AsyncSession, _: Event[Any]) -> None:
        for number in (1, 2):
            await session.execute(insert(Stock).values(name="pear", number=number))

    with pytest.raises(IntegrityError):
        await shop.once(do=twice)
    assert await shop.entries() == set()


async def test_a_failure_that_save_hides_is_no_success(shop: Shop) -> None:
    """PostgreSQL answers the commit of such a transaction as if it were one."""

    async def hide(session: AsyncSession, event: Event[Any]) -> None:
        await session.execute(insert(Line).values(event_id=event.id, organization="org_a"))
        with contextlib.suppress(DBAPIError):
            await session.execute(text("SELECT * FROM nowhere"))

    if shop.is_sqlite:  # where a statement fails alone
        assert await shop.once(do=hide) is True
    else:
        with pytest.raises(DBAPIError):
            await shop.once(do=hide)
    assert await shop.lines() == len(await shop.entries()) == int(shop.is_sqlite)


async def test_a_failure_within_a_savepoint_is_nobodys_but_saves(shop: Shop) -> None:
    async def hide(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT * FROM nowhere"))

    assert await shop.once(do=hide) is True
    assert await shop.lines() == 1


@pytest.mark.parametrize("end", ["commit", "rollback", "close", "reset", "invalidate"])
async def test_only_once_ends_its_transaction(shop: Shop, end: str) -> None:
    async def meddle(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        await getattr(session, end)()

    with pytest.raises(HandlerError, match="committed and closed for it"):
        await shop.once(do=meddle)
    assert (await shop.lines(), await shop.entries()) == (0, set())
    assert await shop.once() is True


@pytest.mark.parametrize("fails_first", [False, True])
async def test_a_transaction_that_was_ended_by_sql_is_no_success(
    shop: Shop, *, fails_first: bool
) -> None:
    async def end(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        if fails_first:
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT * FROM nowhere"))
        await session.execute(text("ROLLBACK"))

    with pytest.raises(HandlerError, match="had ended before"):
        await shop.once(do=end)
    assert await shop.lines() == 0
    assert await shop.once() is True


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_a_transaction_that_was_ended_by_its_own_methods_is_no_success(
    shop: Shop, end: str
) -> None:
    """Beside the session's, which are refused; it would begin another, without the inbox's row."""

    async def meddle(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        await session.run_sync(lambda it: getattr(it.get_transaction(), end)())
        await session.execute(text("SELECT 1"))

    with pytest.raises(HandlerError, match="had ended before"):
        await shop.once(do=meddle)
    assert await shop.lines() == len(await shop.entries()) == int(end == "commit")
    assert await shop.once() is (end != "commit")
    assert await shop.lines() == 1


async def test_a_serialization_failure_runs_save_again(postgres_shop: Shop) -> None:
    """Two that each read what the other writes: one after the other, neither would see it."""
    shop, runs, both = postgres_shop, itertools.count(), asyncio.Barrier(2)
    await shop.execute("INSERT INTO stock VALUES ('pear', 1), ('plum', 1)")

    def take(name: str) -> Any:
        async def do(session: AsyncSession, event: Event[Any]) -> None:
            stock = (await session.scalars(select(Stock))).all()
            if next(runs) < 2:
                await both.wait()
            if sum(each.number for each in stock) > 1:
                (mine,) = (each for each in stock if each.name == name)
                mine.number -= 1
            await save(session, event)

        return do

    options: Any = {"isolation": "SERIALIZABLE"}
    wanted = [shop.once(f"evt_{name}", take(name), **options) for name in ("pear", "plum")]
    assert await asyncio.gather(*wanted) == [True, True]
    assert next(runs) == 3
    async with shop.looking() as connection:
        assert (await connection.execute(text("SELECT sum(number) FROM stock"))).scalar() == 1


async def test_a_deadlock_runs_save_again(postgres_shop: Shop) -> None:
    shop, runs, both = postgres_shop, itertools.count(), asyncio.Barrier(2)
    await shop.execute("INSERT INTO stock VALUES ('pear', 1), ('plum', 1)")

    def take(*names: str) -> Any:
        async def do(session: AsyncSession, _: Event[Any]) -> None:
            one, other = names
            change = text("UPDATE stock SET number = number - 1 WHERE name = :name")
            await session.execute(change, {"name": one})
            if next(runs) < 2:
                await both.wait()
            await session.execute(change, {"name": other})

        return do

    wanted = [shop.once("evt_1", take("pear", "plum")), shop.once("evt_2", take("plum", "pear"))]
    assert await asyncio.gather(*wanted) == [True, True]
    assert next(runs) == 3


async def test_what_fails_to_serialize_again_and_again_fails_in_the_end(
    postgres_shop: Shop,
) -> None:
    runs = itertools.count()

    async def fail(session: AsyncSession, _: Event[Any]) -> None:
        next(runs)
        await session.execute(text("DO $$ BEGIN RAISE serialization_failure; END $$"))

    with pytest.raises(DBAPIError):
        await postgres_shop.once(do=fail)
    assert next(runs) == databases._MOST_RUNS
    assert await postgres_shop.once() is True


async def test_writers_of_two_processes_on_sqlite_wait_for_each_other(sqlite_shop: Shop) -> None:
    """Each reads before it writes: with a lock taken only then, both would wait for ever."""
    await sqlite_shop.execute("INSERT INTO stock VALUES ('pear', 0)")

    async def add(session: AsyncSession, _: Event[Any]) -> None:
        (pear,) = (await session.scalars(select(Stock))).all()
        await asyncio.sleep(0.001)
        pear.number += 1

    async with opened_shop(sqlite_shop.url) as other:
        wanted = [
            each.once(f"evt_{name}_{number}", add)
            for name, each in (("one", sqlite_shop), ("other", other))
            for number in range(10)
        ]
        assert await asyncio.gather(*wanted) == [True] * 20
    async with sqlite_shop.looking() as connection:
        assert (await connection.execute(text("SELECT number FROM stock"))).scalar() == 20


async def test_a_locked_sqlite_is_asked_again_and_fails_in_the_end(sqlite_shop: Shop) -> None:
    async with opened_shop(sqlite_shop.url, connect_args={"timeout": 0.01}) as other:
        async with sqlite_shop.looking() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(DBAPIError, match="locked"):
                await other.once()
        assert await other.once() is True
