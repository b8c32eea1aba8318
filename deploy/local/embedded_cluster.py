"""A Redis Cluster of one's own, started and stopped by the program that needs it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from deploy.local.embedded_redis import EmbeddedRedis, RedisServerError, free_port

SLOTS: Final = 16_384
_LOOK_SECONDS: Final = 0.02
_TOGETHER_SECONDS: Final = 60.0
"""How long they may take until all know each other, and replicas have what their primaries have."""

_PORT_TRIES: Final = 3
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EmbeddedCluster:
    """Nodes on 127.0.0.1, which fail over by themselves.

    Attributes:
        shards: the nodes of each; the first one was the primary when they started.
    """

    shards: Sequence[Sequence[EmbeddedRedis]]

    @property
    def nodes(self) -> list[EmbeddedRedis]:
        """All of them."""
        return [node for shard in self.shards for node in shard]

    @property
    def hosts(self) -> str:
        """The first node of each shard, as they stand in a URL."""
        return ",".join(f"{_HOST}:{shard[0].port}" for shard in self.shards)

    @property
    def url(self) -> str:
        """Its URL, as in REDIS_URL."""
        return f"redis+cluster://{self.hosts}"

    def owner(self, slot: int) -> EmbeddedRedis:
        """The node that has a slot, as those say that answer.

        Raises:
            RedisServerError: none does.
        """
        for node in self.nodes:
            with contextlib.suppress(RedisError), _asking(node) as asked:
                for first, last, (_, port, *_), *_ in asked.execute_command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return self.at(port)
        raise RedisServerError(f"no node of the cluster knows who has slot {slot}")

    def at(self, port: int) -> EmbeddedRedis:
        """The node that listens on a port."""
        return next(node for node in self.nodes if node.port == port)

    def check(self) -> None:
        """Return if all nodes run.

        Raises:
            RedisServerError: one has ended by itself.
        """
        for node in self.nodes:
            node.check()


@contextlib.contextmanager
def embedded_cluster(
    primaries: int = 3,
    *,
    replicas: int = 0,
    node_timeout: float = 2.0,
    arguments: Callable[[], Mapping[str, str]] = dict,
    folder: Path | None = None,
    **options: Any,
) -> Iterator[EmbeddedCluster]:
    """Start one whose primaries have all slots in equal parts; it ends with the block.

    Args:
        primaries: how many; a fail-over takes three, since most of them have to agree.
        replicas: how many each one has.
        node_timeout: seconds until a node that doesn't answer is taken for failed.
        arguments: gives further settings of a node; it is asked for each.
        folder: where each node has a folder of its own; None: where nobody looks for it.
        options: those of `EmbeddedRedis`, for all of them.

    Raises:
        RedisServerError: a node doesn't start, or they don't find each other.
    """
    with contextlib.ExitStack() as running:

        def start(number: int) -> EmbeddedRedis:
            settings = {**_settings(node_timeout), **arguments()}
            own = folder and folder / f"node-{number}"
            if own:
                own.mkdir(parents=True)
            return running.enter_context(_started(settings, folder=own, **options))

        numbers = count(1)
        shards = [[start(next(numbers)) for _ in range(1 + replicas)] for _ in range(primaries)]
        _join(shards)
        yield EmbeddedCluster(shards)


@contextlib.contextmanager
def _started(settings: Mapping[str, str], **options: Any) -> Iterator[EmbeddedRedis]:
    """A node; its second port may be taken by somebody else before it has it."""
    for left in reversed(range(_PORT_TRIES)):
        node = EmbeddedRedis(arguments={**settings, "cluster-port": str(free_port())}, **options)
        with contextlib.ExitStack() as running:
            try:
                running.enter_context(node)
            except RedisServerError:
                if not left:
                    raise
            else:
                yield node
                return


def _settings(node_timeout: float) -> dict[str, str]:
    return {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(round(node_timeout * 1000)),
        # Else a single primary that is away stops all the others.
        "cluster-require-full-coverage": "no",
        # Nobody is told of a replica that has got nothing yet; its primary's ping is something.
        "repl-ping-replica-period": "1",
    }


def _join(shards: Sequence[Sequence[EmbeddedRedis]]) -> None:
    """Make a cluster of nodes that know nothing of each other."""
    nodes = [node for shard in shards for node in shard]
    first = nodes[0]
    for number, (primary, *_) in enumerate(shards):
        slots = SLOTS * number // len(shards), SLOTS * (number + 1) // len(shards) - 1
        with _asking(primary) as asked:
            asked.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            # Each its own, or they would have to find out whose word counts.
            asked.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        with _asking(first) as asked:
            asked.execute_command("CLUSTER", "MEET", _HOST, node.port, _bus_of(node))
    _until(lambda: all(_knows(node, len(nodes), len(shards)) for node in nodes))
    for primary, *others in shards:
        with _asking(primary) as asked:
            name = asked.execute_command("CLUSTER", "MYID")
        for replica in others:
            with _asking(replica) as asked:
                asked.execute_command("CLUSTER", "REPLICATE", name)
    _until(lambda: all(_is_followed(node, shards) for node in nodes))


def _bus_of(node: EmbeddedRedis) -> int:
    with _asking(node) as asked:
        return int(asked.execute_command("CONFIG GET", "cluster-port")["cluster-port"])


def _knows(node: EmbeddedRedis, nodes: int, primaries: int) -> bool:
    """Whether it knows all others, and that together they have all slots."""
    with _asking(node) as asked:
        said = asked.execute_command("CLUSTER", "INFO")
        info = dict(line.split(":", 1) for line in said.decode().split())
    wanted = {"cluster_state": "ok", "cluster_known_nodes": nodes, "cluster_size": primaries}
    return all(info[name] == str(value) for name, value in wanted.items())


def _is_followed(node: EmbeddedRedis, shards: Sequence[Sequence[EmbeddedRedis]]) -> bool:
    """Whether it knows all replicas, and they have what their primaries have."""
    with _asking(node) as asked:
        known = asked.execute_command("CLUSTER", "SLOTS")
        info = asked.execute_command("INFO", "replication")
    if sorted(len(where) - 2 for where in known) != sorted(map(len, shards)):
        return False
    if info["role"] == "slave":
        return bool(info["master_link_status"] == "up")
    states = [info[f"slave{number}"]["state"] for number in range(info["connected_slaves"])]
    return states == ["online"] * (len(shards[0]) - 1)


def _until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TOGETHER_SECONDS
    while not fact():
        if time.monotonic() > deadline:
            raise RedisServerError("the nodes of the cluster don't find each other")
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _asking(node: EmbeddedRedis) -> Iterator[Redis]:
    with Redis(port=node.port, socket_timeout=_TOGETHER_SECONDS) as asked:
        yield asked
