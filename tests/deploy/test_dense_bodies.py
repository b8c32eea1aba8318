"""Facts about memory under bodies that become as many Python objects as JSON of their size can."""

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest
import yaml
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import ROOT, environment, until
from tests.acceptance.test_garbage import most_memory
from tests.acceptance.worker_process import running
from tests.integration.workplace import body

BASE: Final = ROOT / "deploy" / "kubernetes" / "base"
SIZE: Final = 960_000
"""Bytes of a body."""

PIECES: Final = ("[[[]]]", '{"a":{}}', '{"":{"":{"":0}}}', '{"a":1}')
"""What becomes 20 to 40 times as large, most first: a list or an object for a few bytes."""

SENDERS: Final = {"acme": "org_a", "bolt": "org_b"}
"""Organizations by their endpoints: one alone is never given all slots of a worker."""

NUMBER: Final = 110
"""More than a worker has slots."""


def limit(name: str) -> int:
    """Bytes that the shipped manifest lets a program take."""
    deployment, *_ = yaml.safe_load_all((BASE / f"{name}.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (mebibytes,) = re.findall(r"^(\d+)Mi$", container["resources"]["limits"]["memory"])
    return int(mebibytes) * 1024 * 1024


def dense(number: int, organization: str) -> bytes:
    """An event of that size that is as many objects as it can."""
    piece = PIECES[number % len(PIECES)]
    pieces = ",".join([piece] * (SIZE // (len(piece) + 1)))
    head, tail = body(f"evt_{number}", organization, data={"all": "HERE"}).split(b'"HERE"')
    return head + f"[{pieces}]".encode() + tail


@pytest.mark.usefixtures("executed")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_dense_bodies_leave_a_fifth_of_the_memory_that_the_manifests_give(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    handlers = {"WORKER_HANDLERS": "tests.deploy.holding_handlers:handlers"}
    environ = environment(redis_server.url, tmp_path, **handlers, LEASE_SECONDS="30s")
    peaks = dict[str, int]()
    async with ingress(environ) as receiver:
        left = [
            (endpoint, dense(n, organization))
            for n in range(NUMBER // len(SENDERS))
            for endpoint, organization in SENDERS.items()
        ]

        async def send() -> None:
            while left:
                endpoint, signed = left.pop()
                secret = f"whsec_{endpoint[0]}"
                status = 0
                while status != 202:  # too much is in flight, or the machine is busy
                    status = (
                        await receiver.deliver(signed, endpoint=endpoint, secret=secret)
                    ).status

        await asyncio.gather(*(send() for _ in range(64)))
        peaks["ingress"] = most_memory(receiver.process.pid)
    async with running(environ) as (worker,):

        async def nothing_waits() -> bool:
            return int(await redis.zcard(keys.ACCEPTED)) == 0

        await until(nothing_waits, 120)
        peaks["worker"] = most_memory(worker.process.pid)
    for name, peak in peaks.items():
        assert peak <= 0.8 * limit(name), peaks
