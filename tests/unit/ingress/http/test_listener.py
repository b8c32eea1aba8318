"""Facts about the readiness of the ingress."""

from ingress.http.listener import DRAINING, Readiness
from shared.errors import Problem

AWAY = Problem("redis_unreachable", "nobody answers")


class Check:
    """A check that counts how often it is asked."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        self.asked = 0

    async def __call__(self) -> list[Problem]:
        self.asked += 1
        return self.problems


async def test_the_ingress_is_ready_while_nothing_is_wrong_with_redis() -> None:
    assert await Readiness(Check()).problems() == []


async def test_what_is_wrong_with_redis_is_told() -> None:
    assert await Readiness(Check(AWAY)).problems() == [AWAY]


async def test_many_probes_are_one_question_to_redis() -> None:
    check = Check()
    ready = Readiness(check)
    for _ in range(20):
        await ready.problems()
    assert check.asked == 1


async def test_while_it_drains_it_is_not_ready_and_asks_nobody() -> None:
    check = Check()
    ready = Readiness(check)
    ready.draining = True
    assert await ready.problems() == [DRAINING]
    assert check.asked == 0
