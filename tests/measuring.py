"""Which tests `make test` measures the coverage of."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_STARTED_WITH: Final = "COVERAGE_PROCESS_CONFIG"
"""Makes coverage begin in a Python that is started."""

_TESTS: Final = Path(__file__).parent
UNMEASURED: Final = (
    "acceptance/hostile",
    "acceptance/test_author_docs.py",
    "acceptance/test_awaited_redis.py",
    "acceptance/test_captured.py",
    "acceptance/test_chaos.py",
    "acceptance/test_console.py",
    "acceptance/test_crossing.py",
    "acceptance/test_demo.py",
    "acceptance/test_dev.py",
    "acceptance/test_end_to_end.py",
    "acceptance/test_failure_hooks.py",
    "acceptance/test_forking.py",
    "acceptance/test_garbage.py",
    "acceptance/test_log_reader.py",
    "acceptance/test_management.py",
    "acceptance/test_organization_bytes.py",
    "acceptance/test_pages.py",
    "acceptance/test_recovery.py",
    "acceptance/test_redis_outage.py",
    "acceptance/test_rolling_deploy.py",
    "acceptance/test_scale_demo.py",
    "acceptance/test_secrets.py",
    "acceptance/test_shadowing.py",
    "acceptance/test_simulator_process.py",
    "acceptance/test_sql_kills.py",
    "acceptance/test_turns.py",
    "acceptance/test_typed.py",
    "acceptance/test_wheel.py",
    "deploy",
    "integration/ingress/test_answers.py",
    "integration/ingress/test_behind_answers.py",
    "integration/ingress/test_chunks.py",
    "integration/ingress/test_corpus.py",
    "integration/ingress/test_garbage.py",
    "integration/ingress/test_heads.py",
    "integration/ingress/test_logs.py",
    "integration/test_batches.py",
    "integration/test_breaker.py",
    "integration/test_captured_dead.py",
    "integration/test_claim.py",
    "integration/test_fairness.py",
    "integration/test_many_organizations.py",
    "integration/test_memory_ledger.py",
    "integration/test_moving_killed.py",
    "integration/test_moving_slot.py",
    "integration/test_mutants.py",
    "integration/test_ordering.py",
    "integration/test_plain.py",
    "integration/test_poison.py",
    "integration/test_races.py",
    "integration/test_redelivered.py",
    "integration/test_revival.py",
    "integration/test_simulator.py",
    "integration/test_state_property.py",
    "integration/test_suspects.py",
    "integration/test_transition_properties.py",
    "integration/test_turn_properties.py",
    "integration/test_turns.py",
    "integration/test_turns_kept.py",
    "siege",
    "unit/deploy/sellfern/test_endpoint.py",
    "unit/deploy/test_traffic.py",
    "unit/shared/queue/test_scripts.py",
)
"""Folders and files of tests that run the lines which others cover, only for longer.

Tracing doubles what Python takes, and a program's start. What only these run counts as uncovered.
"""

MEASURED_CASES: Final = 3
"""So many of a test's cases, the first, are traced: the others run the same lines, mostly."""


def is_measured(test: Path) -> bool:
    """Whether the tests of a file are."""
    return not any(test.is_relative_to(_TESTS / each) for each in UNMEASURED)


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Trace neither this process nor what it starts."""
    trace, started_with = sys.gettrace(), os.environ.pop(_STARTED_WITH, None)
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
        if started_with is not None:
            os.environ[_STARTED_WITH] = started_with
