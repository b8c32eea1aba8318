"""Facts about the images: built by a real builder, they run as a strict runtime would run them.

Outside of `make test`, since it downloads what an image is made of: `make image`.
"""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from aiohttp import web
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.process import ROOT, get, until
from tests.image.builder import Builder
from tests.image.container import Image

DEPLOY: Final = ROOT / "deploy"
BASE: Final = "localhost/python-of-debian"
LARGEST: Final = 120_000_000
"""Bytes that the product, with its dependencies, may put on top of Python."""

ITS_OWN: Final = ("-user", "10001", "-o", "-group", "10001", "-o", "-perm", "-o=w")
WRITABLE: Final = ("find", "/", "-xdev", "-not", "-type", "l", "(", *ITS_OWN, ")")
"""What the user might write if the root weren't read-only: not every runtime is that strict."""

ANYBODYS: Final = {"/tmp", "/var/tmp", "/var/lock", "/run/lock"}  # noqa: S108  # as in any Debian


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    with TemporaryDirectory(prefix="images-") as folder:
        made = Builder(Path(folder))
        try:
            made.make_base(BASE)
            file = DEPLOY / "Dockerfile"
            made.build(ROOT, "sellfern-webhooks", file=file, PYTHON_IMAGE=BASE)
            file = DEPLOY / "handlers/Dockerfile"
            made.build(file.parent, "shop-handlers", file=file)
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session")
def product(builder: Builder) -> Image:
    return Image(builder.unpack("sellfern-webhooks"), builder.settings("sellfern-webhooks"))


@pytest.fixture(scope="session")
def handlers(builder: Builder) -> Image:
    """The image of a team's own handlers."""
    return Image(builder.unpack("shop-handlers"), builder.settings("shop-handlers"))


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """What a deployment mounts into an ingress."""
    folder = tmp_path / "sellfern"
    folder.mkdir()
    shutil.copy(DEPLOY / "kubernetes/example/endpoints.toml", folder)
    (folder / "acme").write_text("whsec_of_the_example")
    return folder


@dataclass
class Erp:
    """What the shop's handlers call.

    Attributes:
        told: what it was told.
        answers: cleared while it answers nobody.
    """

    url: str = ""
    told: list[tuple[object, str, str]] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def erp() -> AsyncIterator[Erp]:
    """One that answers."""
    made = Erp()
    made.answers.set()

    async def book(request: web.Request) -> web.Response:
        headers = request.headers
        booked = (await request.json(), headers["Authorization"], headers["Idempotency-Key"])
        made.told.append(booked)
        await made.answers.wait()
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/orders", book)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()


def test_the_product_adds_little_to_what_it_stands_on(builder: Builder) -> None:
    assert builder.size("sellfern-webhooks") - builder.size(BASE) < LARGEST


@pytest.mark.parametrize("name", ["product", "handlers"])
async def test_whoever_runs_in_an_image_may_write_nothing_in_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(name)
    found = await image.run(*WRITABLE)
    writable = set(found.stdout.split())
    assert ANYBODYS & writable, found.stderr  # it has looked
    assert sorted(writable - ANYBODYS)[:10] == []
    assert (await image.run("id", "-u")).stdout == "10001\n"
    tried = await image.run("pip", "install", "--no-index", "--no-deps", "/app/nothing")
    assert tried.code != 0


async def test_what_an_image_of_ones_own_installs_changes_no_version_of_ours(
    handlers: Image,
) -> None:
    asked = await handlers.run("python", "-c", "import httpx, worker; print(httpx.__file__)")
    assert asked.stdout.startswith("/app/lib/"), asked.stderr
    tried = await handlers.run("pip", "install", "--no-index", "--dry-run", "redis==4.0.0")
    assert tried.code == 1
    assert "The user requested (constraint) redis==5." in tried.stdout


async def test_an_event_gets_from_the_ingress_of_one_image_to_the_handlers_of_the_other(
    product: Image,
    handlers: Image,
    mounted: Path,
    erp: Erp,
    redis: Redis,
    redis_server: EmbeddedRedis,
) -> None:
    (mounted / "redis-url").write_text(redis_server.url)
    ports = {"INGRESS_PORT": "0", "INGRESS_ADMIN_PORT": "0", "WORKER_ADMIN_PORT": "0"}
    environ = {"MOUNTED": str(mounted), "REDIS_URL_FILE": "/etc/sellfern/redis-url", **ports}
    shop = {"ERP_URL": erp.url, "ERP_TOKEN": "a token of the ERP"}
    async with (
        await product.start(**environ) as ingress,
        await handlers.start(**environ, **shop) as worker,
    ):
        (listening,) = await ingress.logged("ingress_listening")
        await worker.logged("worker_started", handlers=2)
        for program, image in ((ingress, product), (worker, handlers)):
            (admin,) = await program.logged("admin_listening")
            assert (await get(admin["port"], "/readyz")).status == 200
            (*check, _) = image.settings["Healthcheck"]["Test"][1:]
            assert (await program.ask(*check, str(admin["port"]))).code == 0

        at_port = environ | {"INGRESS_PORT": str(listening["port"])}

        async def send(order: str) -> None:
            data = f'{{"order_id": "{order}", "status": "new"}}'
            words = ("sellfern-ingress", "send", "acme", "order.created", "--data", data)
            sent = await product.run(*words, **at_port)
            assert sent.stdout.startswith("202 "), sent.stderr

        await send("7")
        (line,) = await worker.logged("event_handled")
        (booked,) = erp.told
        assert booked[0] == {"order": "7", "organization": "org_123"}
        assert booked[1] == "Bearer a token of the ERP"
        assert line["event_id"] in booked[2]

        # What is under way at a SIGTERM ends as ever.
        erp.answers.clear()
        await send("8")

        async def is_under_way() -> bool:
            return len(erp.told) == 2

        await until(is_under_way)
        for program in (worker, ingress):
            program.send(signal.SIGTERM)
        await worker.logged("draining")
        erp.answers.set()
        assert [await worker.ended(), await ingress.ended()] == [0, 0]
        assert len(worker.events("event_handled")) == len(erp.told) == 2
