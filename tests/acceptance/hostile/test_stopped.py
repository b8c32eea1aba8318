"""Facts about a worker that is told to stop while a handler misbehaves: it ends in time."""

import pytest

from tests.acceptance.hostile.account import Case
from tests.acceptance.hostile.crew import Crew
from tests.acceptance.hostile.lanes import Outcomes, begun, rows
from tests.acceptance.hostile.row import DRAINED, Row
from tests.acceptance.hostile.table import STOPPING


async def hold(crew: Crew, row: Row) -> None:
    async def terminate(case: Case) -> None:
        await case.crew.terminate(await case.crew.at_work(), row.drained)

    await Case(crew, row).hold(terminate)
    await crew.stop((DRAINED,))


outcomes = begun(hold)


@pytest.mark.asyncio(loop_scope="module")
@rows(STOPPING)
async def test_sigterm_ends_it_in_time_and_another_worker_handles_the_event(
    request: pytest.FixtureRequest, outcomes: Outcomes, row: Row
) -> None:
    await outcomes[request.node.nodeid]
