"""A worker that bears misdeeds one after the other, as if nothing had happened."""

import pytest

from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.row import Family, Row


class Shift:
    """The crew of one family of misdeeds; where one has harmed it, the next finds a new one."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.is_harmed = True

    async def bear(self, row: Row) -> None:
        """Do a misdeed to it."""
        if self.is_harmed:
            await self.crew.start_anew()
        self.is_harmed = True
        await Case(self.crew, row).hold()
        self.is_harmed = not all(end.finished for end in row.ends)


def misdeeds(*families: Family) -> pytest.MarkDecorator:
    """Have a test do all of some families, each to a worker of its own."""
    return pytest.mark.parametrize(
        ("shift", "row"),
        [pytest.param(family.name, row, id=row.name) for family in families for row in family],
        indirect=["shift"],
        scope="module",  # or each row would have a worker of its own
    )
