"""Random steps of a state machine, the same each time unless others are asked for."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


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
