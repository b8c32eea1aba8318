"""Facts about row-level security: a statement without its WHERE sees one organization's rows."""

from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.integration.sql.shop import Line, Shop, event, opened_shop, organization, save
from tests.postgres_server import PostgresServer
from worker import Event
from worker.sql import Database

POLICY = """
ALTER TABLE lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE lines FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON lines
USING (organization = current_setting('sellfern.organization', true));
"""


@pytest.fixture
async def secured(postgres_shop: Shop) -> Shop:
    for statement in POLICY.split(";")[:-1]:
        await postgres_shop.execute(statement)
    for name in ("org_a", "org_b"):
        await postgres_shop.once(f"evt_{name}", name=name)
    return postgres_shop


async def seen(session: AsyncSession) -> set[str]:
    """Whose rows a query sees that forgot to say whose."""
    return set(await session.scalars(select(Line.organization)))


async def test_save_sees_its_organizations_rows_only(secured: Shop) -> None:
    for name in ("org_a", "org_b"):
        found = set[str]()

        async def look(session: AsyncSession, event: Event[Any], found: set[str] = found) -> None:
            found |= await seen(session)
            await session.execute(text("UPDATE lines SET event_id = 'touched'"))

        await secured.once(f"evt_{name}_2", look, name=name)
        assert found == {name}
    async with secured.database.session(organization("org_a")) as session:
        assert await session.scalar(select(func.count()).select_from(Line)) == 1


async def test_save_can_not_write_another_organizations_row(secured: Shop) -> None:
    async def misplace(session: AsyncSession, event: Event[Any]) -> None:
        session.add(Line(event_id=event.id, organization="org_b"))

    with pytest.raises(DBAPIError, match="row-level security"):
        await secured.once("evt_x", misplace)


async def test_a_session_sees_its_organizations_rows_only(secured: Shop) -> None:
    for name in ("org_a", "org_b"):
        async with secured.database.session(organization(name)) as session:
            assert await seen(session) == {name}


async def test_the_organization_is_gone_with_its_transaction(postgres_url: str) -> None:
    """The next one on the connection begins with nobody's; here there is one connection."""
    url = postgres_url.replace("postgresql:", "postgresql+asyncpg:")
    async with opened_shop(url, connections=1) as shop:
        for statement in POLICY.split(";")[:-1]:
            await shop.execute(statement)
        await shop.once()
        async with shop.database.session(organization("org_a")):
            pass
        async with shop.database._engine.connect() as connection:
            setting = text("SELECT current_setting('sellfern.organization', true)")
            assert (await connection.execute(setting)).scalar() in {None, ""}
            assert (await connection.execute(select(func.count()).select_from(Line))).scalar() == 0


# What `worker check` says


async def codes(database: Database) -> list[str]:
    return [finding.code for finding in await database.check()]


async def test_a_role_for_whom_no_policy_holds_is_refused(
    secured: Shop, postgres: PostgresServer
) -> None:
    assert await codes(secured.database) == ["database_usable"]
    with_bypass = "ALTER ROLE app BYPASSRLS"
    try:
        postgres.execute(with_bypass)
        assert await codes(secured.database) == ["row_security_bypassed"]
        postgres.execute("ALTER ROLE app NOBYPASSRLS SUPERUSER")
        (finding,) = await secured.database.check()
        assert finding.level == "error"
        assert "app is a superuser" in finding.message
    finally:
        postgres.execute("ALTER ROLE app NOBYPASSRLS NOSUPERUSER")


async def test_an_owner_whose_tables_do_not_force_their_policies_is_told(secured: Shop) -> None:
    await secured.execute("ALTER TABLE lines NO FORCE ROW LEVEL SECURITY")
    (finding,) = await secured.database.check()
    assert finding.code == "row_security_not_forced"
    assert "ALTER TABLE lines FORCE" in finding.message


async def test_an_inbox_that_is_not_there_or_not_granted_is_told(
    secured: Shop, postgres: PostgresServer
) -> None:
    postgres.execute("ALTER TABLE sellfern_inbox OWNER TO postgres", name="shop")
    (finding,) = await secured.database.check()
    assert finding.code == "inbox_not_granted"
    assert "SELECT, INSERT, DELETE" in finding.message
    postgres.execute("GRANT SELECT, INSERT, DELETE ON sellfern_inbox TO app", name="shop")
    assert await codes(secured.database) == ["database_usable"]
    assert await secured.database.once(event("evt_3"), organization(), save) is True
    postgres.execute("DROP TABLE sellfern_inbox", name="shop")
    assert await codes(secured.database) == ["inbox_missing"]


async def test_a_database_that_is_away_is_told(secured: Shop, postgres: PostgresServer) -> None:
    postgres.stop()
    try:
        assert await codes(secured.database) == ["database_unreachable"]
    finally:
        postgres.start()
