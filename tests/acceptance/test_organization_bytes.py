"""One organization fills its share of Redis; to the others that makes no difference."""

import asyncio
import re
from collections import Counter
from pathlib import Path

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import SECRET, environment, run, until
from tests.acceptance.worker_process import running
from tests.ingress_support import Reply

MEGABYTE = 1 << 20
MAXMEMORY = 96 * MEGABYTE


async def flood(program: IngressProcess, number: int) -> list[Reply]:
    """What the holder of one organization's secret gets for bodies of a megabyte."""
    return [
        await program.deliver(f"{each:08}".encode() * (MEGABYTE // 8), secret=SECRET)
        for each in range(number)
    ]


async def trickle(program: IngressProcess, done: asyncio.Event) -> Counter[int]:
    """What the other organization's small deliveries get meanwhile."""
    got = Counter[int]()
    while not done.is_set():
        body = b'{"number":%d}' % got.total()
        got[(await program.deliver(body, endpoint="bolt", secret="whsec_b")).status] += 1
    return got


async def test_signed_garbage_fills_the_senders_share_and_nobody_elses(tmp_path: Path) -> None:
    with EmbeddedRedis(appendfsync=None, maxmemory=str(MAXMEMORY)) as server:
        environ = environment(server.url, tmp_path, DURABILITY="memory")
        async with (
            Redis.from_url(server.url) as redis,
            ingress(environ) as program,
            running(environ),
        ):
            done = asyncio.Event()
            others = asyncio.create_task(trickle(program, done))
            replies = await flood(program, 60)
            done.set()
            got = await others
            assert got.keys() == {202}
            assert got.total() > 10
            codes = Counter(reply.code for reply in replies if reply.status == 503)
            assert codes.keys() == {"organization_bytes_full"}
            assert codes.total() > 30  # a quarter of 96 MiB are 18 such payloads
            taken = 60 - codes.total()
            await until(lambda: _has(redis, keys.BURIED, "org_a", taken))

            assert (await program.admin("/readyz")).status == 200
            shown = (await program.admin("/metrics")).body.decode()
            (limit,) = re.findall(r'bytes_limit{organization="org_a"} (.+)', shown)
            assert float(limit) == MAXMEMORY / 4
            told = await run("worker", "status", "--json", environ=environ)
            (org_a,) = [
                each for each in told.json[0]["organizations"] if each["organization"] == "org_a"
            ]
            assert org_a["held"]["dead"] > taken * MEGABYTE

            discarded = await run(
                "worker", "dead-letters", "discard", "--organization", "org_a", "--yes",
                environ=environ,
            )  # fmt: skip
            assert discarded.code == 0, discarded.stderr
            assert (await program.deliver(b"again", secret=SECRET)).status == 202


async def _has(redis: Redis, name: str, field: str, number: int) -> bool:
    return int(await redis.hget(name, field) or 0) == number
