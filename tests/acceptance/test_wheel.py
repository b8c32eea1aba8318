"""Facts about what is installed from the wheel, for somebody whose project is somewhere else."""

import asyncio
import json
import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.process import ROOT, Program, run_command, until
from tests.tools import tool

EXAMPLE: Final = ROOT / "tests" / "examples" / "shop"
PROGRAMS: Final = ("ingress", "shared", "worker")
OFFLINE: Final = ("--no-index", "--no-deps", "--no-build-isolation")
SECRET: Final = "whsec_of_the_example"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy, since setuptools leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT, source, dirs_exist_ok=True, ignore=_left_out)
    build = ("-m", "pip", "wheel", "--quiet", *OFFLINE, "--wheel-dir")
    subprocess.run([sys.executable, *build, source / "dist", source], check=True)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it in a fresh environment, beside the dependencies that this one has already."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet")
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True)
    # The folder alone, without its .pth files: one of those leads to this repository.
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example to where nothing of this repository is near."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project"))


def _left_out(_folder: str, names: list[str]) -> set[str]:
    """What no clone has."""
    made = ("__pycache__", "build", "dist")
    return {name for name in names if name.startswith(".") or name.endswith((".egg-info", *made))}


def test_it_holds_what_the_two_programs_need_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    listed = subprocess.run(
        [tool("git"), "ls-files", *PROGRAMS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    needed = {name for name in listed.stdout.split() if not name.endswith(".md")}
    assert {f"{name}/py.typed" for name in PROGRAMS} < needed
    about = {name for name in packed if ".dist-info/" in name}
    assert packed - about == needed
    assert {name.partition("/")[2] for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_the_fresh_environment_has_the_wheel_and_not_this_repository(
    python: Path, tmp_path: Path
) -> None:
    asked = "import ingress, shared, worker; print(ingress.__file__, shared.__file__)"
    said = subprocess.run(
        [python, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(Path(each).is_relative_to(python.parents[1]) for each in said)


def checked(python: Path, project: Path, checker: str = "mypy") -> tuple[int, str]:
    """What a type checker, strict, says of a project in the fresh environment."""
    words: dict[str, tuple[str | Path, ...]] = {
        "mypy": ("--python-executable", python, "--cache-dir", project / ".mypy_cache"),
        "basedpyright": ("--pythonpath", python),
    }
    ended = subprocess.run(
        [sys.executable, "-m", checker, *words[checker]],
        cwd=project,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


WRONG: Final = """
from collections.abc import AsyncIterator
from typing import assert_type

from shop.erp import Erp
from worker import Event, Handlers, Organization, Retry, Settings, State

handlers = Handlers()
sharing = Handlers[Erp]()


@sharing.lifespan  # wrong: yields something else
async def yields(settings: Settings) -> AsyncIterator[str]:
    yield settings["ERP_URL"]


@handlers.on("order.updated")  # wrong: takes them the other way round
async def swapped(organization: Organization, event: Event[dict[str, str]]) -> None: ...


@handlers.on("order.created")  # wrong: what it returns means nothing
async def answers(event: Event[dict[str, str]], organization: Organization) -> str:
    return event.data["status"]


@handlers.on("order.*")
async def gives_class(event: Event[dict[str, str]], organization: Organization) -> Retry | None:
    return Retry  # wrong: the class itself


@sharing.on("order.updated")  # wrong: takes something else than is given
async def takes_text(
    event: Event[dict[str, str]], organization: Organization, erp: str
) -> None: ...


@sharing.on("order.*")
async def right(
    event: Event[dict[str, str]], organization: Organization, erp: Erp
) -> Retry | None:
    assert_type(event.data, dict[str, str])
    assert_type(organization.state, State)
    organization.state.put("key", 1)  # wrong: not awaited
    erp.book("1", [], token="", key="")  # wrong: not awaited
    await organization.state.increment("count", "one")  # wrong: no number
    return Retry(after="soon")  # wrong: no number


assert_type(right, int)  # wrong: the decorator gives back what it was given


async def calls(event: Event[dict[str, str]], organization: Organization, erp: Erp) -> None:
    assert_type(await right(event, organization, erp), Retry | None)
    await right(event, organization, "erp")  # wrong: as where it is registered
"""

COMPLAINTS: Final = {
    "mypy": (
        "Success: no issues found in 5 source files",
        r"^shop/wrong\.py:(\d+): error: ",
    ),
    "basedpyright": (
        "0 errors, 0 warnings, 0 notes",
        r"wrong\.py:(\d+):\d+ - error: ",
    ),
}
"""What each of them says of nothing wrong, and of something."""


@pytest.mark.parametrize("checker", COMPLAINTS)
def test_handlers_are_checked_against_it(python: Path, project: Path, checker: str) -> None:
    nothing, complaint = COMPLAINTS[checker]
    code, said = checked(python, project, checker)
    assert (code, said.strip()) == (0, nothing), said
    (project / "shop" / "wrong.py").write_text(WRONG)
    wrong = {n for n, line in enumerate(WRONG.splitlines(), start=1) if "# wrong" in line}
    code, said = checked(python, project, checker)
    assert set(map(int, re.findall(complaint, said, re.MULTILINE))) == wrong, said


def test_its_tests_are_green_there(python: Path, project: Path) -> None:
    """By `worker.testing`, without Redis, and without a setting."""
    ended = subprocess.run(
        [python, "-m", "pytest", "-q"],
        cwd=project,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^\d+ passed in ", ended.stdout, re.MULTILINE), ended.stdout


ORDER: Final = {"order_id": 7, "status": "paid", "items": [{"sku": "SKU-1", "quantity": 2}]}


async def test_its_handlers_run_in_the_fresh_environment(
    python: Path, project: Path, redis: Redis, redis_server: EmbeddedRedis
) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": redis_server.url,
        "LOG_FORMAT": "json",
        "INGRESS_PORT": "0",
        "INGRESS_ADMIN_PORT": "0",
        "WORKER_ADMIN_PORT": "0",
        "WORKER_HANDLERS": "shop.hooks:handlers",
        "ACME_SECRET": SECRET,
        "ERP_TOKEN": "a token of the ERP",
    }
    ingress = await begin(python, "ingress", environ, project)
    worker = await begin(python, "worker", environ, project)
    try:
        (line,) = await ingress.logged("ingress_listening")
        environ["INGRESS_PORT"] = str(line["port"])
        await asyncio.gather(*(send(python, environ, project, kind) for kind in KINDS))
        await until(lambda: handled(redis, len(KINDS)))
        # The ERP was busy at first, and asked again, booked once.
        assert len(worker.events("order_booked", order="7")) == 1
        assert {each["attempt"] for each in worker.events("event_handled")} == {1, 2}
    finally:
        await asyncio.gather(ingress.stop(), worker.stop())
    state = ("-m", "worker", "state", "org_123", "--json")
    kept = (await run_command(str(python), *state, environ=environ, folder=project)).json
    values = {each["key"]: each["value"] for each in kept}
    assert values["created"] == 1
    assert values["bookings/7"] == "booking-1"
    assert values["orders/7"]["status"] == "paid"


KINDS: Final = ("order.created", "order.updated")


async def begin(python: Path, module: str, environ: dict[str, str], folder: Path) -> Program:
    """Start one of the two programs as it is installed."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", module),
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Program(process)


async def send(python: Path, environ: dict[str, str], folder: Path, kind: str) -> None:
    """Send an event by the ingress's own command."""
    words = ("-m", "ingress", "send", "acme", kind, "--data", json.dumps(ORDER))
    ended = await run_command(str(python), *words, environ=environ, folder=folder)
    assert (ended.code, ended.stdout[:3]) == (0, "202"), ended.stderr


async def handled(redis: Redis, number: int) -> bool:
    """Whether so many events are done."""
    return int(await redis.hget(keys.COUNTERS, "handled") or 0) >= number
