"""Facts about what a handler forks, or sets for others: its worker is the same as before."""

import pytest

from tests.acceptance.hostile.misdeeds import context, forking
from tests.acceptance.hostile.row import Row
from tests.acceptance.hostile.shift import Shift, misdeeds


@pytest.mark.asyncio(loop_scope="module")
@misdeeds(context.family, forking.family)
async def test_it_is_one_outcome_an_attempt_and_nobody_elses_loss(shift: Shift, row: Row) -> None:
    await shift.bear(row)
