"""What of a database isn't as it has to be: the inbox, and who may pass row-level security by."""

from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.program.findings import Finding
from worker.sql.dialects import Kind, reading
from worker.sql.inbox import TABLE, is_there
from worker.sql.telling import where, why

_ROLE = text("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")

# Whoever owns a table, or may do as its owner does, passes its policies by unless they are forced.
_UNFORCED = text(
    "SELECT oid::regclass::text FROM pg_class "
    "WHERE relrowsecurity AND NOT relforcerowsecurity AND pg_has_role(relowner, 'USAGE') ORDER BY 1"
)
_RIGHTS = text(
    "SELECT name FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS name "
    "WHERE NOT has_table_privilege(:inbox, name)"
)


async def check(engine: AsyncEngine, kind: Kind) -> list[Finding]:
    """Everything found; one that is fine where nothing is."""
    database = where(engine.url)
    try:
        async with reading(engine, kind) as connection:
            problems = await connection.run_sync(lambda it: list(_problems(it)))
    except Exception as exc:  # noqa: BLE001  of the driver, the system or SQLAlchemy
        problems = [("database_unreachable", why(exc))]
    if not problems:
        return [Finding("ok", "database", "database_usable", f"{database}: can be worked with")]
    return [Finding("error", "database", code, f"{database}: {what}") for code, what in problems]


def _problems(connection: Connection) -> Iterator[tuple[str, str]]:
    has_inbox = is_there(connection)
    if not has_inbox:
        yield "inbox_missing", f"no table {TABLE.name}; `python -m worker sql create` makes it"
    if connection.dialect.name != "postgresql":
        return
    if has_inbox:
        missing = connection.execute(_RIGHTS, {"inbox": TABLE.name}).scalars().all()
        if missing:
            yield "inbox_not_granted", f"the role may not {', '.join(missing)} on {TABLE.name}"
    yield from _passes_by(*connection.execute(_ROLE).one())
    for table in connection.execute(_UNFORCED).scalars():
        what = f"the role owns {table}, whose policies hold for others only"
        yield "row_security_not_forced", f"{what}: ALTER TABLE {table} FORCE ROW LEVEL SECURITY"


def _passes_by(name: str, is_superuser: object, bypasses: object) -> Iterator[tuple[str, str]]:
    if is_superuser or bypasses:
        kind = "a superuser" if is_superuser else "a role with BYPASSRLS"
        what = f"{name} is {kind}, for whom row-level security doesn't hold"
        yield "row_security_bypassed", f"{what}: expected a role that is neither"
