"""Facts about what a handler leaves behind or keeps in its state: its worker stays the same."""

import pytest

from tests.acceptance.hostile.misdeeds import lingering, storing
from tests.acceptance.hostile.row import Row
from tests.acceptance.hostile.shift import Shift, misdeeds


@pytest.mark.asyncio(loop_scope="module")
@misdeeds(lingering.family, storing.family)
async def test_it_is_one_outcome_an_attempt_and_nobody_elses_loss(shift: Shift, row: Row) -> None:
    await shift.bear(row)
