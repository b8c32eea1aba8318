"""Random steps of a state machine, the same each time unless others are asked for."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

import uvloop
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

Result = TypeVar("Result")


class StepRunner(asyncio.Runner):
    """Runs thousands of short steps on the loop that the programs have.

    What it was made from sets the handler of Ctrl-C for each, which takes a fifth of their time,
    most of it to describe a task in an error that Python itself catches.
    """

    def __init__(self) -> None:
        super().__init__(loop_factory=uvloop.new_event_loop)

    def run(self, coro: Coroutine[Any, Any, Result], *, context: Context | None = None) -> Result:
        """Run one to its end."""
        assert context is None
        return self.get_loop().run_until_complete(coro)


def take_random_steps(
    machine: type[RuleBasedStateMachine],
    *,
    steps: int,
    examples: int,
    random: bool,
    shrink: bool,
) -> None:
    """Take them; raises what is wrong after the fewest of them.

    Args:
        machine: which steps there are; made anew for each run.
        steps: of each run, at the most.
        examples: how many runs.
        random: whether they differ from those of the last time.
        shrink: whether to look for the fewest steps, which takes a minute.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=not random,
            deadline=None,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
