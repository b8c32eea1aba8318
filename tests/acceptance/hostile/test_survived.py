"""Facts about misdeeds that end a worker, or outlive their event in it: others go on at once."""

import pytest

from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.lanes import Outcomes, begun, rows
from tests.acceptance.hostile.row import Row
from tests.acceptance.hostile.table import OWN


async def hold(crew: Crew, row: Row) -> None:
    await Case(crew, row).hold()
    await crew.stop(row.drained)


outcomes = begun(hold)


@pytest.mark.asyncio(loop_scope="module")
@rows(*OWN)
async def test_it_is_charged_to_its_event_alone(
    request: pytest.FixtureRequest, outcomes: Outcomes, row: Row
) -> None:
    await outcomes[request.node.nodeid]
