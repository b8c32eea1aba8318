"""The handler's own SQL database, in which an event's work is committed exactly once."""

from importlib.util import find_spec

from shared.errors import SettingsError

if find_spec("sqlalchemy") is None:
    raise SettingsError(
        "worker.sql",
        "SQLAlchemy (pip install 'sellfern-webhooks[sql]', with asyncpg, psycopg or aiosqlite)",
        "no such package",
    )

# After what makes sure of it.
from worker.sql.database import Database, DatabaseUnavailable

__all__ = ["Database", "DatabaseUnavailable"]
