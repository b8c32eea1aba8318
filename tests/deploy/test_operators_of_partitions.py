"""Facts about an operator's Redis user where there are several partitions."""

from tests.conftest import StartRedis
from tests.deploy.as_users import let_users_in
from tests.deploy.deployed_redis import password
from tests.integration.several import FOUR, ORGANIZATIONS, Shop
from tests.integration.test_views_of_partitions import Office


def test_operators_may_look_and_act_in_all_of_them(fresh_redis_server: StartRedis) -> None:
    office = Office(fresh_redis_server(), fresh_redis_server())

    async def some_of_everything(shop: Shop) -> None:
        for number in range(FOUR):
            await shop.bury(number, f"dead_{number}")
            await shop.bury(number, f"gone_{number}")
            await shop.wait(number, f"evt_{number}")
            await shop.work(number)

    office.do(some_of_everything)
    for server in office.servers:
        let_users_in(server)
    office.login = f"operator:{password('operator')}@"
    jobs = [str(each["job"]) for each in office.json("dead-letters", "list")]
    assert len(jobs) == 2 * FOUR
    for command in (
        *("status", "partitions", "dead-letters export", "events show evt_0"),
        *(f"dead-letters show {jobs[0]}", f"dead-letters discard {jobs[0]} --yes"),
        *("dead-letters replay --all --yes --wait 0.1", f"state {ORGANIZATIONS[3]}"),
        *(f"pause {ORGANIZATIONS[2]}", f"resume {ORGANIZATIONS[2]}"),
    ):
        result = office.run(*command.split())
        assert (result.exit_code, result.stderr.count("can't")) == (0, 0), (command, result.output)
    assert office.json("status")[0]["waiting"] == 2 * FOUR - 1
