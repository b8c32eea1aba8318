"""The users of deploy/redis: each may do its work, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from deploy.sellfern.openapi import document
from deploy.sellfern.vendor import EVENTS
from shared.queue import due, gauges, held_bytes, keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, check_layout
from shared.queue.writer import Accepted, Queue
from shared.redis.connection import open_redis
from shared.redis.durability import Durability, is_kept
from shared.settings.redis_url import RedisUrl
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import Program, environment, run
from tests.acceptance.worker_process import running
from tests.deploy.deployed_redis import DeployedRedis
from tests.deploy.traffic import handled, settled
from tests.integration.jobs import delivery
from tests.integration.workplace import body
from worker.operate import revival
from worker.operate.belongings import Belongings

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = "org_a:0123"


@dataclass(frozen=True)
class Place:
    """Both programs over one Redis, each as its own user."""

    server: DeployedRedis
    receiver: IngressProcess
    worker: Program
    environ: dict[str, dict[str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("users")
    with DeployedRedis(folder) as server:
        environ = {
            user: environment(server.url_of(user), folder)
            for user in ("ingress", "worker", "operator")
        }
        async with (
            ingress(environ["ingress"]) as receiver,
            running(environ["worker"]) as (worker,),
        ):
            yield Place(server, receiver, worker, environ)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DeployedRedis]:
    """A server without programs, and one of each thing in it."""
    with DeployedRedis(tmp_path_factory.mktemp("alone")) as found:
        async with found.client_of() as admin:
            await admin.set(keys.payload(JOB), "a payload")
            await admin.set(keys.state("org_a", "orders/1"), "a state")
            await admin.set(keys.event("org_a", "evt_1"), "done:x")
            await admin.hset(keys.dead_letter(JOB), "payload", "a payload")
            await admin.zadd(keys.dead("org_a"), {JOB: 1})
        yield found


async def test_both_programs_and_every_command_work_as_their_users(place: Place) -> None:
    bodies = [body(f"evt_{n}", data={"act": "count"}) for n in range(20)]
    rejected = body("evt_bad", data={"act": "reject"})
    for signed in [*bodies, *bodies, rejected]:
        assert (await place.receiver.deliver(signed)).status == 202
    await settled(place.environ["operator"])
    operator = place.environ["operator"]
    assert await handled(operator) == {f"evt_{n}": 1 for n in range(20)}
    (status,) = (await run("worker", "status", "--json", environ=operator)).json
    assert (status["waiting"], status["dead"]) == (0, 1)
    letters = (await run("worker", "dead-letters", "list", "--json", environ=operator)).json
    assert [letter["reason"] for letter in letters] == ["rejected"]
    for arguments in (
        ("dead-letters", "show", letters[0]["job"]),
        ("dead-letters", "replay", letters[0]["job"], "--yes"),
        ("pause", "org_a"),
        ("resume", "org_a"),
        ("dead-letters", "export"),
        ("dead-letters", "runs"),
        ("actions",),
    ):
        ended = await run("worker", *arguments, environ=operator)
        dies_again = "replay" in arguments  # for its handler rejects it still
        assert ended.code == (1 if dies_again else 0), (arguments, ended.stderr)
        assert "not_kept" not in ended.stderr
    await settled(operator)
    ended = await run("worker", "dead-letters", "discard", "--all", "--yes", environ=operator)
    assert ended.code == 0, ended.stderr
    (found,) = (await run("worker", "events", "show", "evt_bad", "--json", environ=operator)).json
    assert found["state"] == "discarded"
    (run_,) = (await run("worker", "dead-letters", "runs", "--json", environ=operator)).json[:1]
    assert (run_["action"], run_["state"]) == ("discard", "finished")
    metrics = (await place.receiver.admin("/metrics")).body.decode()
    assert 'sellfern_queue_depth{state="queued"}' in metrics
    assert "redis_permission" not in place.receiver.text + place.worker.text


async def test_check_holds_without_reading_the_configuration(place: Place) -> None:
    checked = await run("ingress", "check", "--json", environ=place.environ["ingress"])
    assert [finding["code"] for finding in checked.json] == [
        "settings_valid",
        "endpoints_valid",
        "secret_tiny",
        "durable",
    ]
    for program in (place.receiver, place.worker):
        assert (await program.admin("/readyz")).status == 200


async def test_what_a_command_of_the_ingress_changes_is_kept_as_its_user(
    place: Place, tmp_path: Path
) -> None:
    """A command that needs no Redis for what it does."""
    file = tmp_path / "openapi.json"
    file.write_bytes(msgspec.json.encode(document("https://api.example.com", EVENTS[:2])))
    words = ("reference", "import", str(file), "--yes")
    environ = place.environ["ingress"] | {"REFERENCE_FILE": str(tmp_path / "known.toml")}
    done = await run("ingress", *words, environ=environ)
    assert done.code == 0, done.stderr
    assert "not_kept" not in done.stderr
    (last, *_) = (await run("worker", "actions", "--json", environ=place.environ["operator"])).json
    assert last["action"] == "import reference"


async def test_a_paused_organizations_events_wait_and_go_on(place: Place) -> None:
    operator = place.environ["operator"]
    assert (await run("worker", "pause", "org_b", environ=operator)).code == 0
    signed = body("evt_paused", "org_b", data={"act": "count"})
    assert (await place.receiver.deliver(signed, endpoint="bolt", secret="whsec_b")).status == 202
    async with place.server.client_of() as admin:
        async with asyncio.timeout(20):
            while not await admin.exists(keys.parked("org_b")):
                await asyncio.sleep(0.01)
        assert (
            await place.receiver.deliver(signed, endpoint="bolt", secret="whsec_b")
        ).status == 202
        assert (await run("worker", "resume", "org_b", environ=operator)).code == 0
        await settled(operator)
        assert await admin.get(keys.state("org_b", "handled/evt_paused")) == b"1"


async def test_the_ingress_may_enqueue_whatever_the_jobs_state_is(server: DeployedRedis) -> None:
    """A leased job whose place was deleted by hand is the longest way through the script."""
    one, other = delivery(b"one", "org_x"), delivery(b"other", "org_x")
    jobs = [job_id("org_x", each.body) for each in (one, other)]
    async with server.client_of("ingress") as own, server.client_of() as admin:
        queue = Queue(Partition.only(own), Durability())
        new, known = Accepted.NEW, Accepted.KNOWN
        assert await queue.enqueue([one, other, one]) == [new, new, known]
        assert await admin.hexists(keys.REDELIVERED, jobs[0])
        await admin.hset(keys.CLAIMS, jobs[0], "ab:0:1:1:")
        await admin.hset(keys.RUNNING, "org_x", "1")
        await admin.hset(keys.ORGANIZATIONS, keys.BREAKER + "org_x", f"trying:{jobs[0]}")
        await admin.zrem(keys.QUEUE, *jobs)
        await admin.zadd(keys.parked("org_x"), {jobs[1]: 1})
        await admin.delete(keys.payload(jobs[1]))
        assert await queue.enqueue([one, other]) == [new, new]
        assert await admin.zrange(keys.QUEUE, 0, -1) == [jobs[0].encode()]
        assert await admin.exists(keys.payload(jobs[1]))
        await admin.zrem(keys.ACCEPTED, *jobs)
        refusals = await queue.enqueue([one, other])
        assert [str(each).partition(":")[0] for each in refusals] == ["name_taken"] * 2


async def test_who_waits_for_its_turn_has_a_place_for_every_user(server: DeployedRedis) -> None:
    """A redelivery, or a replay, would give it a second one."""
    one = delivery(b"waits", "org_x")
    job = job_id("org_x", one.body)
    turn = msgspec.msgpack.encode(("sellfern:turn:org_x:key:1", "", "", True, 0, False))
    letter = {"payload": "waits", "received_at": "1"}
    async with server.client_of("ingress") as own, server.client_of() as admin:
        queue = Queue(Partition.only(own), Durability())
        assert await queue.enqueue([one]) == [Accepted.NEW]
        await admin.zrem(keys.QUEUE, job)
        await admin.hset(keys.TURNS, mapping={job: turn})
        await admin.hset(keys.dead_letter(job), mapping=letter)
        assert await queue.enqueue([one]) == [Accepted.KNOWN]
        async with server.client_of("operator") as operator:
            assert await revival.replay_one(Partition.only(operator), job) == "known"
            assert await operator.hgetall(keys.IN_TURN) == {}
        assert await admin.zscore(keys.QUEUE, job) is None


async def test_the_ingress_may_do_in_a_partition_what_it_may_do_without(
    server: DeployedRedis,
) -> None:
    async with server.client_of("ingress") as own, server.client_of() as admin:
        partitions = Partitions(tuple(Partition.at(number, own) for number in range(4)))
        await admin.delete(keys.ACCEPTED)  # what waits undivided would keep it from beginning
        for _ in range(2):
            assert await check_layout(partitions) == []
        one, last = delivery(b"one", "org_x"), partitions.all[3]
        await admin.hset(last.names.moved, "org_y", "2")  # or nobody asks who has moved
        for answer in (Accepted.NEW, Accepted.KNOWN):
            assert await Queue(last, Durability()).enqueue([one]) == [answer]
        assert await admin.hlen(last.names.redelivered) == 1
        assert (await gauges.read(last)).depths.waiting == 1
        assert (await held_bytes.read_shares(last, 1)).organizations == {"org_x": (1, 0)}
        at = (await gauges.read(last)).depths.at
        found = await due.Look(last).read(at, slots=1, parked=1)
        assert (found.events, found.longest["3"].organization) == (1, "org_x")
        (job,) = await admin.zrange(last.names.accepted, 0, -1)
        for command in (
            ("GET", last.names.payload(job.decode())),
            ("ZREM", last.names.accepted, job.decode()),
            ("HGETALL", last.names.claims),
            ("SET", last.names.slots, "1"),
        ):
            assert await refused(own, *command)
        await admin.delete(partitions.all[0].names.layout)


async def test_whoever_moves_an_organization_may_write_all_that_is_its_own(
    server: DeployedRedis,
) -> None:
    """A worker's user may, and so the command has that; an ingress has to know where one went."""
    async with server.client_of() as admin:
        for names in (keys.UNTAGGED, keys.Names("021")):
            for each in fields(names):
                if each.metadata and each.metadata["of"]:
                    name = getattr(names, each.name)
                    name += "" if each.metadata["of"].startswith("[") else "org_a:1"
                    assert await admin.execute_command("ACL DRYRUN", "worker", "DEL", name) == b"OK"
    for user in ("worker", "operator"):
        async with server.client_of(user) as redis:
            its_own = Belongings(Partition.at(0, redis), "org_a")
            changes = await its_own.watched()
            assert (changes is not None) == (user == "worker")
            if changes is not None:
                await redis.set(its_own.name_of("state", b"x"), "1")
                assert await changes.names() == {its_own.name_of("state", b"x")}
                await changes.close()
                write = ("HINCRBY", its_own.partition.names.counters, "moves", 1)
                assert await is_kept(redis, write, 20)
    async with server.client_of("ingress") as own, server.client_of("operator") as operator:
        moved = keys.Names("021").moved
        assert await own.hmget(moved, ["org_a"]) == [None]
        assert await refused(own, "HSET", moved, "org_a", "1")
        assert await refused(operator, "HSET", moved, "org_a", "1")


async def refused(redis: Redis, *command: str) -> bool:
    """Whether the user may not do it."""
    try:
        await redis.execute_command(*command)
    except NoPermissionError:
        return True
    except ResponseError as exc:
        return "ACL failure in script" in str(exc) or "NOPERM" in str(exc)
    return False


PAYLOAD, STATE, LETTER = keys.payload(JOB), keys.state("org_a", "orders/1"), keys.dead_letter(JOB)
NOBODYS = [
    ("CONFIG", "GET", "masterauth"),
    ("CONFIG", "SET", "appendfsync", "no"),
    ("CONFIG", "REWRITE"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "ingress", "+@all"),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SHUTDOWN",),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("MODULE", "LIST"),
    ("SUBSCRIBE", "any"),
    ("MIGRATE", "h", "1", "k", "0", "1"),
    ("SAVE",),
    ("BGREWRITEAOF",),
    ("SLOWLOG", "GET"),
    ("SET", "another:key", "v"),
    ("GET", "another:key"),
]


@pytest.mark.parametrize("user", ["ingress", "worker", "operator"])
@pytest.mark.parametrize("command", NOBODYS, ids=" ".join)
async def test_no_user_may_do_what_no_program_does(
    server: DeployedRedis, user: str, command: tuple[str, ...]
) -> None:
    async with server.client_of(user) as redis:
        assert await refused(redis, *command)


@pytest.mark.parametrize(
    "command",
    [
        ("GET", PAYLOAD),
        ("GETEX", PAYLOAD),
        ("GETDEL", PAYLOAD),
        ("GETRANGE", PAYLOAD, "0", "-1"),
        ("MGET", PAYLOAD),
        ("SET", PAYLOAD, "v", "GET"),
        ("SET", PAYLOAD, "v"),
        ("SET", PAYLOAD, "v", "PX", "1"),
        ("MSET", PAYLOAD, "v"),
        ("GETSET", PAYLOAD, "v"),
        ("APPEND", PAYLOAD, "v"),
        ("EXPIRE", PAYLOAD, "1"),
        ("MSET", STATE, "v"),
        ("SETNX", STATE, "v"),
        ("MSETNX", PAYLOAD, "v", STATE, "v"),
        ("MSET", PAYLOAD, "v", STATE, "v"),
        ("DUMP", PAYLOAD),
        ("COPY", PAYLOAD, keys.WAKE),
        ("RENAME", PAYLOAD, keys.WAKE),
        ("DEL", PAYLOAD),
        ("EVAL", f"return redis.call('GET', '{PAYLOAD}')", "0"),
        ("EVAL", f"return redis.call('SET', '{STATE}', 'x')", "0"),
        ("EVAL", f"return redis.call('HGETALL', '{LETTER}')", "0"),
        ("GET", STATE),
        ("SET", STATE, "v"),
        ("EXISTS", STATE),
        ("HGETALL", LETTER),
        ("HGET", LETTER, "payload"),
        ("HSET", LETTER, "payload", "v"),
        ("ZRANGE", keys.dead("org_a"), "0", "-1"),
        ("GET", keys.event("org_a", "evt_1")),
        ("SET", keys.event("org_a", "evt_1"), "done:x"),
        ("SET", keys.SLOTS, "1"),
        ("HSET", keys.WORKERS, "w", "x"),
        ("ZPOPMIN", keys.QUEUE),
        ("ZREM", keys.QUEUE, JOB),
        ("ZREM", keys.ACCEPTED, JOB),
        ("DEL", keys.QUEUE),
        ("HGETALL", keys.CLAIMS),
        ("HGET", keys.CLAIMS, JOB),
        ("HSET", keys.CLAIMS, JOB, "ab:0:1:1:"),
        ("HGETALL", keys.ORGANIZATIONS),
        ("HSET", keys.ORGANIZATIONS, keys.PAUSE + "org_a", "x"),
        ("HSET", keys.RUNNING, "org_a", "99"),
        ("HSET", keys.BURIED, "org_a", "0"),
        ("HDEL", keys.WAITING, "org_a"),
        ("ZADD", keys.BREAKERS, "1", "org_a"),
        ("ZADD", keys.parked("org_a"), "1", JOB),
        ("SCAN", "0"),
        ("RANDOMKEY",),
        ("BLPOP", keys.WAKE, "0"),
        ("LRANGE", keys.WAKE, "0", "-1"),
    ],
    ids=" ".join,
)
async def test_the_ingress_reads_no_payload_and_no_state_and_changes_only_the_queue(
    server: DeployedRedis, command: tuple[str, ...]
) -> None:
    async with server.client_of("ingress") as redis:
        assert await refused(redis, *command)


@pytest.mark.parametrize(
    "command",
    [
        ("SET", STATE, "v"),
        ("DEL", STATE),
        ("EVAL", f"return redis.call('DEL', '{STATE}')", "0"),
    ],
    ids=" ".join,
)
async def test_an_operator_reads_state_and_writes_none(
    server: DeployedRedis, command: tuple[str, ...]
) -> None:
    async with server.client_of("operator") as redis:
        assert await redis.get(STATE) == b"a state"
        assert await refused(redis, *command)


@pytest.mark.parametrize(
    "command", [("SCAN", "0"), ("EVAL", "return redis.call('SCAN', '0')", "0")], ids=" ".join
)
async def test_the_ingress_lists_no_names_of_keys(
    server: DeployedRedis, command: tuple[str, ...]
) -> None:
    async with server.client_of("ingress") as redis:
        assert await refused(redis, *command)


@pytest.mark.parametrize("user", ["worker", "operator"])
async def test_who_has_to_look_for_keys_lists_their_names(server: DeployedRedis, user: str) -> None:
    async with server.client_of(user) as redis:
        assert {name async for name in redis.scan_iter(match=STATE)} == {STATE.encode()}
        assert await refused(redis, "RANDOMKEY")


async def test_what_is_accepted_the_ingress_can_not_overwrite(server: DeployedRedis) -> None:
    async with server.client_of("ingress") as redis, server.client_of() as admin:
        assert not await redis.setnx(PAYLOAD, "other bytes")
        assert not await redis.msetnx({PAYLOAD: "other bytes", keys.payload("org_a:new"): "x"})
        assert await admin.get(PAYLOAD) == b"a payload"
        assert not await admin.exists(keys.payload("org_a:new"))


async def test_nobody_comes_in_without_a_password(server: DeployedRedis) -> None:
    for login in ("", "ingress:@", "worker:x@", "default:@"):
        async with open_redis(RedisUrl(f"redis://{login}127.0.0.1:{server.port}/0")) as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()


async def test_a_user_without_a_file_of_its_own_can_not_log_in(tmp_path: Path) -> None:
    server = DeployedRedis(tmp_path)
    (tmp_path / "secrets" / "operator").unlink()
    with server:
        async with server.client_of("worker") as redis:
            assert await redis.ping()
        async with server.client_of("operator") as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()
