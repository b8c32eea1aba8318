"""The handler's own SQL database, in which an event's work is committed exactly once."""

from importlib.util import find_spec

from shared.errors import HandlerError

if find_spec("sqlalchemy") is None:
    raise HandlerError(
        "worker.sql needs SQLAlchemy: pip install 'sellfern-webhooks[sql]', "
        "and asyncpg, psycopg or aiosqlite"
    )

# After what makes sure of it.
from worker.sql.database import Database, DatabaseUnavailable

__all__ = ["Database", "DatabaseUnavailable"]
