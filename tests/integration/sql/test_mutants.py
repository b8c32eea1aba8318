"""Facts about what goes wrong without one thing or another: each is there for a reason."""

import contextlib
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tests.integration.sql.shop import Shop, save
from tests.integration.sql.test_pruning import RETENTION, over, replayed_late
from worker import Event
from worker.sql import database as databases
from worker.sql import transaction
from worker.sql.transaction import enter


async def test_a_row_of_a_transaction_of_its_own_loses_the_work(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter_alone(session: Session, *arguments: Any) -> bool:
        is_new = enter(session, *arguments)
        Session.commit(session)
        return is_new

    async def fail(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        raise ValueError

    monkeypatch.setattr(databases, "enter", enter_alone)
    with contextlib.suppress(ValueError):
        await shop.once(do=fail)
    assert await shop.once() is False
    assert await shop.lines() == 0


async def test_without_the_row_a_second_attempt_writes_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.database._kind, "enter", lambda *_: True)
    assert [await shop.once(), await shop.once()] == [True, True]
    assert await shop.lines() == 2


async def test_pruned_by_age_alone_a_replay_writes_again(sqlite_shop: Shop, redis: Redis) -> None:
    async def prune() -> None:
        await sqlite_shop.database.prune(over, older_than=RETENTION)

    assert await replayed_late(sqlite_shop, redis, prune) == 2


async def test_without_the_look_at_the_row_a_commit_that_was_none_is_a_success(
    postgres_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hide(session: AsyncSession, event: Event[Any]) -> None:
        await save(session, event)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await session.execute(text("SELECT * FROM nowhere"))

    monkeypatch.setattr(transaction, "stands", lambda *_: True)
    monkeypatch.setattr(postgres_shop.database._kind, "is_begun", lambda _: True)
    assert await postgres_shop.once(do=hide) is True
    assert await postgres_shop.lines() == 0


async def test_an_organization_that_is_set_for_the_session_outlives_its_transaction(
    postgres_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = postgres_shop.database._kind
    monkeypatch.setattr(kind, "_enter", kind._enter.replace(", true)", ", false)"))
    await postgres_shop.once()
    async with postgres_shop.database._engine.connect() as connection:
        setting = text("SELECT current_setting('sellfern.organization', true)")
        assert (await connection.execute(setting)).scalar() == "org_a"
