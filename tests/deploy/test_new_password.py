"""A new password under load, as deploy/redis/README.md says: nobody is refused meanwhile."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.pages import Terminal, Typed, commands, environment_of
from tests.acceptance.process import ROOT, Program, environment, run_command, until
from tests.acceptance.worker_process import running
from tests.deploy.deployed_redis import DeployedRedis, deployed_sentinel
from tests.deploy.kubernetes_objects import DEPLOY
from tests.deploy.traffic import handled, traffic
from tests.in_memory import folder_in_memory
from tests.integration.workplace import body
from tests.ports import free_port

PAGE: Final = "deploy/redis/README.md"
COMMANDS: Final = [
    each
    for each in commands(PAGE)
    if any(word in each for word in ("passwords.sh", "start.sh reload", "> urls/"))
]
RELOAD, WRITE = COMMANDS[1:3]
USERS: Final = ("ingress", "worker", "operator")
PROBES: Final = re.findall(
    r"\[sh, -c, '(.+)'\]", (DEPLOY / "redis" / "kubernetes.yaml").read_text()
) + re.findall(r"(?<=- )REDISCLI_AUTH=.+", (DEPLOY / "compose.yaml").read_text())
"""How Kubernetes and Compose ask Redis whether it is well."""

PATIENCE: Final = 60


@dataclass
class Site:
    """A Redis, who knows where it is, and an operator who has the page before him.

    Attributes:
        folder: where commands are typed.
        redis: the server that has the data.
        sentinels: those that name it.
        form: a URL with ``USER`` and ``PASSWORD`` in it.
        settings: of the programs.
    """

    folder: Path
    redis: DeployedRedis
    sentinels: list[DeployedRedis] = field(default_factory=list)
    form: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.form = self.form or f"redis://USER:PASSWORD@127.0.0.1:{self.redis.port}/0"
        (self.folder / "deploy").symlink_to(ROOT / "deploy")
        shutil.copytree(self.redis.folder.with_name("secrets"), self.folder / "secrets")
        (self.folder / "urls").mkdir()
        self._environ = environment_of(self.folder / "home")
        self.write()

    def write(self) -> None:
        """Write the URLs, as the page does for the one that it has as an example."""
        for user in USERS:
            url = self.form.replace("USER", user).replace("PASSWORD", self.passwords(user)[-1])
            (self.folder / "urls" / user).write_text(f"{url}\n")

    def passwords(self, user: str) -> list[str]:
        """What stands in a user's file."""
        return (self.folder / "secrets" / user).read_text().split()

    def environ(self, user: str) -> dict[str, str]:
        """What a user's program is told."""
        file = {"REDIS_URL": "", "REDIS_URL_FILE": str(self.folder / "urls" / user)}
        return {**environment("", self.folder), **file, **self.settings}

    async def is_well(self, probe: str) -> bool:
        """Whether a container of its Redis would be called so."""
        place, port = self.redis.folder.with_name("secrets"), self.redis.port
        for user in USERS:  # the container has the files of the site
            shutil.copy(self.folder / "secrets" / user, place / user)
        here = probe.replace("/run/secrets/redis", str(place))
        here = here.replace("redis-cli", f"redis-cli -p {port}")
        return (await run_command("sh", "-c", here, environ=self._environ)).code == 0

    async def type(self, command: str) -> None:
        """Type a command; a reload is meant at each server, with the users' files of all."""
        if command == RELOAD:
            for server in (self.redis, *self.sentinels):
                await self._type(command, self._places(server))
        elif command == WRITE and self.form.startswith("redis://"):
            await self._type(command, {"@redis:6379": f"@127.0.0.1:{self.redis.port}"})
        elif command == WRITE:
            self.write()
        else:
            await self._type(command, {})

    def _places(self, server: DeployedRedis) -> dict[str, str]:
        place = server.folder.parent
        for user in USERS:
            shutil.copy(self.folder / "secrets" / user, place / "secrets" / user)
        kind = "reload sentinel" if server in self.sentinels else "reload"
        return {
            "=deploy/redis": f"={place / 'config'}",
            "=secrets": f"={place / 'secrets'}",
            "=/var/lib/redis": f"={server.folder}",
            " reload": f" {kind} -p {server.port}",
        }

    async def _type(self, command: str, places: dict[str, str]) -> None:
        with Terminal(self.folder, self._environ, self.folder, places) as terminal:
            await asyncio.to_thread(terminal.type_all, [Typed(command, "^$")])


@pytest.fixture(params=["one", "sentinel", "cluster"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with ExitStack() as stack:
        folder = folder_in_memory(stack)
        cluster = ("cluster", "--cluster-port", str(free_port()))
        words = cluster if request.param == "cluster" else ()
        redis = stack.enter_context(DeployedRedis(folder / "redis", words=words))
        if request.param == "one":
            yield Site(folder, redis)
        elif request.param == "cluster":
            form = f"redis+cluster://USER:PASSWORD@127.0.0.1:{redis.port}"
            yield Site(folder, redis, form=form, settings={"WAIT_REPLICAS": "0", "PARTITIONS": "2"})
        else:
            place = folder / "sentinel"
            sentinel = stack.enter_context(deployed_sentinel(place, redis.port))
            where = f"127.0.0.1:{sentinel.port}/sellfern/0"
            who = "sentinel_username=USER&sentinel_password=PASSWORD"
            form = f"redis+sentinel://USER:PASSWORD@{where}?{who}"
            # There are no replicas here: what they have is another test's matter.
            yield Site(folder, redis, [sentinel], form, {"DURABILITY": "memory"})


@asynccontextmanager
async def programs(site: Site) -> AsyncIterator[tuple[IngressProcess, Program]]:
    """Both of them, at work."""
    async with (
        ingress(site.environ("ingress")) as receiver,
        running(site.environ("worker")) as (worker,),
    ):
        yield receiver, worker


def test_both_ask_in_the_same_words() -> None:
    kubernetes, compose = PROBES
    assert compose == kubernetes.replace("$", "$$")


async def test_nobody_is_refused_while_passwords_change(site: Site) -> None:
    old = {user: site.passwords(user) for user in USERS}
    async with site.redis.client_of() as admin:
        if "cluster" in site.form:
            await admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: is_whole(admin))
        async with programs(site) as (receiver, worker):
            async with traffic(receiver) as under_way:
                await under_way.accepts(20)
                for command in COMMANDS:
                    await site.type(command)
                    await under_way.accepts(20)
                    assert await site.is_well(PROBES[0]), command
            assert under_way.refused == set()
            accepted = {*under_way.accepted, "evt_new"}

            for user in USERS:
                (new,) = site.passwords(user)
                assert [new] != old[user]
                for server in (site.redis, *site.sentinels):
                    assert await lets_in(server, user, new)
                    assert not await lets_in(server, user, *old[user])
            # And everybody comes back with the new one.
            await admin.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: is_accepted(receiver))
            await until(lambda: are_handled(site, accepted), PATIENCE)
            for program in (receiver, worker):
                assert len(await program.logged("redis_url_reread")) == 1
                assert not program.events("redis_url_refused")


async def is_whole(admin: Redis) -> bool:
    """Whether all slots are served."""
    return b"cluster_state:ok" in await admin.execute_command("CLUSTER", "INFO")


async def is_accepted(receiver: IngressProcess) -> bool:
    """Whether one more event is."""
    return (await receiver.deliver(body("evt_new", data={"act": "count"}))).status == 202


async def are_handled(site: Site, events: set[str]) -> bool:
    """Whether all these are, each once, as an operator sees it."""
    found = await handled(site.environ("operator"))
    assert set(found.values()) <= {1}
    return found.keys() >= events  # one may have been accepted whose answer nobody has waited for


async def lets_in(server: DeployedRedis, user: str, secret: str) -> bool:
    """Whether a user may log in with that."""
    async with Redis(port=server.port, username=user, password=secret) as redis:
        try:
            await redis.ping()
        except AuthenticationError:
            return False
    return True
