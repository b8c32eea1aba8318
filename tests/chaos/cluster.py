"""A stage on a cluster of three primaries with two replicas each, any of which can be cut off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from deploy.local.embedded_cluster import EmbeddedCluster, embedded_cluster
from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue.partition import TAGS, home
from tests.chaos.network import Network
from tests.chaos.sender import ORDERED
from tests.chaos.stage import Stage
from tests.in_memory import folder_in_memory

PARTITIONS: Final = 6
PRIMARIES: Final = 3
REPLICAS: Final = 2
NODE_TIMEOUT: Final = 2.0
PATIENCE: Final = 60.0

WAITED_FOR: Final = {"fsync": 1, "replica": REPLICAS}
"""How many replicas have to have an event before it is accepted."""

_LOOK_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 20.0
_HERE: Final = "127.0.0.1"
_ORGANIZATIONS_EACH: Final = 2


def _organizations() -> Iterator[str]:
    """As many for each partition, and the one whose events are handled one at a time."""
    for partition in range(PARTITIONS):
        living = (name for name in map("org_{}".format, count()) if _home(name) == partition)
        for _ in range(_ORGANIZATIONS_EACH):
            yield next(living)
    yield ORDERED


def _home(organization: str) -> int:
    return home(organization, PARTITIONS)


def slot_of(partition: int) -> int:
    """The slot that a partition's keys are in."""
    return key_slot(TAGS[partition].encode())


class ClusterStage(Stage):
    """A cluster.

    Args:
        folder: for logs, and what the handlers write.
        durability: ``fsync`` or ``replica``.
        say: tells of what must not happen.

    Attributes:
        places: in which partition each organization lives.
        network: between the nodes.
        cluster: the nodes.
    """

    cluster: EmbeddedCluster

    def __init__(self, folder: Path, durability: str, say: Callable[[str], None]) -> None:
        organizations = list(_organizations())
        super().__init__(folder, durability, say, organizations)
        self.places = {name: _home(name) for name in organizations}
        self.network = Network()
        self._clients: dict[int, Redis] = {}

    @contextlib.asynccontextmanager
    async def storing(self) -> AsyncIterator[None]:
        """Start the nodes, and let them know each other by addresses that can be cut off."""
        with contextlib.ExitStack() as stack:
            numbers = count(1)
            starting = embedded_cluster(
                PRIMARIES,
                replicas=REPLICAS,
                node_timeout=NODE_TIMEOUT,
                arguments=lambda: _settings(next(numbers)),
                folder=folder_in_memory(stack),
            )
            self.cluster = await self.do(lambda: stack.enter_context(starting))
            stack.callback(self._keep_logs)
            async with self.network.forwarding(), contextlib.AsyncExitStack() as clients:
                for node in self.cluster.nodes:
                    redis = Redis(port=node.port, socket_timeout=_ANSWER_SECONDS)
                    self._clients[node.port] = await clients.enter_async_context(redis)
                    found = await redis.config_get("cluster-port")
                    await self.network.add(
                        self.address(node), node.port, int(found["cluster-port"])
                    )
                for node in self.cluster.nodes:
                    await self._announce(node)
                await self.until_whole()
                yield

    def settings(self) -> dict[str, str]:
        """Both programs reach the nodes past the network between these."""
        return {
            "REDIS_URL": self.cluster.url,
            "PARTITIONS": str(PARTITIONS),
            "WAIT_REPLICAS": str(WAITED_FOR[self.durability]),
        }

    @contextlib.asynccontextmanager
    async def primaries(self) -> AsyncIterator[list[Redis]]:
        """Those that have slots, once all say the same of it."""
        await self.until_whole()
        async with contextlib.AsyncExitStack() as clients:
            ports = {node.port for node in (await self.owners()).values()}
            yield [
                await clients.enter_async_context(Redis(port=port, socket_timeout=10))
                for port in sorted(ports)
            ]

    async def has_more(self) -> bool:
        """Whether anything is, in any partition."""
        found = [
            await self.client(node).zcard(f"sellfern:{{{TAGS[number]}}}:accepted")
            for number, node in (await self.owners()).items()
        ]
        return len(found) < PARTITIONS or any(found)

    def living_in(self, *partitions: int) -> set[str]:
        """Who lives in some partitions."""
        return {name for name, place in self.places.items() if place in partitions}

    async def start_node(self, node: EmbeddedRedis) -> None:
        """Start a node on its files again."""
        await self.do(node.start)
        await self._announce(node)

    async def owners(self, *away: EmbeddedRedis) -> dict[int, EmbeddedRedis]:
        """Who has each partition, as all nodes say but those that are away.

        Returns: nothing of partitions of which they say different things.
        """
        nodes = [node for node in self.cluster.nodes if node not in away]
        views = [await self._view(node) for node in nodes]
        return {
            number: self.cluster.at(views[0][number])
            for number in range(PARTITIONS)
            if len({view.get(number) for view in views}) == 1 and number in views[0]
        }

    async def until_taken_over(self, *away: EmbeddedRedis) -> None:
        """Wait until others have all that was theirs who are away."""

        async def is_over() -> bool:
            owners = await self.owners(*away)
            return len(owners) == PARTITIONS and not set(away) & set(owners.values())

        await _until(is_over)

    async def until_whole(self) -> None:
        """Wait until all nodes say the same, and each primary's replicas follow it."""
        await _until(self._is_whole)

    async def replicas_of(self, primary: EmbeddedRedis) -> list[EmbeddedRedis]:
        """Those that follow a primary."""
        info = await self.client(primary).info("replication")
        numbers = range(info["connected_slaves"])
        return [self.cluster.at(int(info[f"slave{number}"]["port"])) for number in numbers]

    async def hand_over(self, primary: EmbeddedRedis) -> None:
        """Let a replica take a primary's place in good order."""
        first, *_ = await self.replicas_of(primary)
        await self.client(first).execute_command("CLUSTER", "FAILOVER")

        async def is_over() -> bool:
            return primary not in (await self.owners()).values()

        await _until(is_over)
        await self.until_whole()

    def client(self, node: EmbeddedRedis) -> Redis:
        """A client of a node that nothing cuts off."""
        return self._clients[node.port]

    def address(self, node: EmbeddedRedis) -> str:
        """The one by which the others know a node."""
        return _address(self.cluster.nodes.index(node) + 1)

    async def _announce(self, node: EmbeddedRedis) -> None:
        await self.client(node).config_set("cluster-announce-ip", self.address(node))

    async def _view(self, node: EmbeddedRedis) -> dict[int, int]:
        """By each partition the port of who has it, as one node says; it may know nothing."""
        try:
            said = await self.client(node).execute_command("CLUSTER", "SLOTS")
        except (RedisError, OSError):
            return {}
        return {
            number: port
            for number in range(PARTITIONS)
            for first, last, (_, port, *_), *_ in said
            if first <= slot_of(number) <= last
        }

    async def _is_whole(self) -> bool:
        if len(await self.owners()) < PARTITIONS:
            return False
        try:
            looks = [await self._look_at(node) for node in self.cluster.nodes]
        except (RedisError, OSError):
            return False
        primaries = [said for said in looks if said["role"] == "master"]
        await self._mend(looks)
        return (
            len(primaries) == PRIMARIES
            and all(map(_is_followed, primaries))
            and all(said.get("master_link_status", "up") == "up" for said in looks)
            and not any(b"fail" in said["nodes"] for said in looks)
            # One that has just started refuses everything for two seconds.
            and all(b"cluster_state:ok" in said["cluster"] for said in looks)
            # Each is called by the address that can be cut off.
            and not any(b"%s:" % _HERE.encode() in said["nodes"] for said in looks)
        )

    async def _mend(self, looks: Sequence[Mapping[str, Any]]) -> None:
        """Have a replica that follows another replica follow that one's primary.

        Redis leaves it so where a primary that has handed over, or comes back, is slow to say so.
        """
        for node, said in zip(self.cluster.nodes, looks, strict=True):
            if said["role"] == "slave":
                followed = self.cluster.nodes.index(self.cluster.at(said["master_port"]))
                if looks[followed]["role"] == "slave":
                    primary = self.cluster.at(looks[followed]["master_port"])
                    name = await self.client(primary).execute_command("CLUSTER", "MYID")
                    with contextlib.suppress(RedisError):  # it may know it by now
                        await self.client(node).execute_command("CLUSTER", "REPLICATE", name)

    async def _look_at(self, node: EmbeddedRedis) -> Mapping[str, Any]:
        redis = self.client(node)
        nodes = await redis.execute_command("CLUSTER", "NODES")
        cluster = await redis.execute_command("CLUSTER", "INFO")
        return {**await redis.info("replication"), "nodes": nodes, "cluster": cluster}

    def _keep_logs(self) -> None:
        """Their folders leave with them."""
        for number, node in enumerate(self.cluster.nodes, 1):
            (self.folder / f"node-{number}.log").write_text(node.log())


def _settings(number: int) -> dict[str, str]:
    return {
        # By this one the others' proxies know who connects.
        "bind-source-addr": _address(number),
        "cluster-announce-ip": _HERE,
        # Clients take this, whatever the nodes are called among themselves.
        "cluster-announce-hostname": _HERE,
        "cluster-preferred-endpoint-type": "hostname",
        # Each primary keeps its own.
        "cluster-allow-replica-migration": "no",
        "repl-timeout": "5",
        "auto-aof-rewrite-percentage": "0",
    }


def _address(number: int) -> str:
    return f"127.0.1.{number}"


def _is_followed(said: Mapping[str, Any]) -> bool:
    states = [said[f"slave{number}"]["state"] for number in range(said["connected_slaves"])]
    return states == ["online"] * REPLICAS


async def _until(fact: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await fact():
            await asyncio.sleep(_LOOK_SECONDS)
