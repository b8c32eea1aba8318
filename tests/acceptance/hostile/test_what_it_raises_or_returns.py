"""Facts about what a handler raises or returns: its worker is the same as before."""

import pytest

from tests.acceptance.hostile.misdeeds import raising, returning
from tests.acceptance.hostile.row import Row
from tests.acceptance.hostile.shift import Shift, misdeeds


@pytest.mark.asyncio(loop_scope="module")
@misdeeds(raising.family, returning.family)
async def test_it_is_one_outcome_an_attempt_and_nobody_elses_loss(shift: Shift, row: Row) -> None:
    await shift.bear(row)
