"""What is told of a database and its errors: one line, without a password."""

from sqlalchemy import URL


def where(url: URL) -> str:
    """Which database; libpq's parameters may hold a password as well as the user's place does."""
    secret = [name for name in url.query if name.lower().endswith(("password", "secret"))]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def why(error: BaseException) -> str:
    """The first line of what an error says, or its name: a time limit's says nothing."""
    lines = f"{error}".splitlines()
    return lines[0] if lines else type(error).__name__
