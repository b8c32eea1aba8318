"""Facts about the commands that the pages show: typed as they stand, they do what the page says."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.pages import (
    Terminal,
    Typed,
    blocks,
    commands,
    environment_of,
    fresh_checkout,
    pages,
    programs,
)
from tests.conftest import StartRedis
from tests.deploy import test_new_password as new_password
from tests.deploy.test_team_pages import PAGES as TEAMS
from tests.ports import free_ports
from tests.tools import tool

PYTHON: Final = ".venv/bin/python"
SEND: Final = (
    f"{PYTHON} -m ingress send acme order.updated "
    """--data '{"order_id": "1", "status": "paid"}'"""
)
MANAGE: Final = "curl -H 'x-api-key: sk_test_local'"

DEMO: Final = (Typed("make demo", r"✓ 2,\d+ sent = .* handled"),)
DEVELOPING: Final = (
    Typed('make dev ARGS="--handlers shop.hooks:handlers"', "worker_started", goes_on=True),
    Typed(f"{SEND} --env-file .dev/env", "^202 "),
    Typed(
        f"{PYTHON} -m worker state org_123 orders/ --env-file .dev/env",
        r'"key":"orders/1","value":\{"status":"paid"\}',
        looks=True,
    ),
    Typed(f"{PYTHON} -m worker status --env-file .dev/env", r"handled +1 "),
)
DEPLOYING: Final = (
    Typed(
        "export REDIS_URL=redis://127.0.0.1:6379/0 ENDPOINTS_FILE=endpoints.toml "
        "ACME_SECRET=whsec_…",
        "^$",
    ),
    Typed(f"{PYTHON} -m ingress check", "^ok +redis +durable"),
    Typed(f"{PYTHON} -m worker check", "^ok +handlers .* 1 registered"),
    Typed(f"{PYTHON} -m ingress", "ingress_listening", goes_on=True),
    Typed(f"{PYTHON} -m worker", "worker_started", goes_on=True),
    Typed(SEND, "^202 "),
    Typed(f"{PYTHON} -m worker state org_123 orders/", r'"orders/1".*"paid"', looks=True),
    Typed(f"{PYTHON} -m worker dead-letters list", "Dead letters: none"),
)
SIMULATING: Final = (
    Typed(
        'make sellfern ARGS="--endpoints-file endpoints.toml"', "simulator_listening", goes_on=True
    ),
    Typed(f"{MANAGE} http://127.0.0.1:8090/webhooks", '/webhooks/acme"'),
    Typed(
        "curl -d type=order.updated -d organization=org_123 http://127.0.0.1:8090/send",
        "^it happened",
    ),
    Typed("python -m worker status", "handled +2 ", looks=True),  # of all that was sent so far
    Typed("python -m worker partitions", r"^ +0 +127\.0\.0\.1:", looks=True),
    Typed(
        f"{MANAGE} -H 'Idempotency-Key: k1' http://127.0.0.1:8090/webhooks \\\n"
        """    -d '{"url": "http://127.0.0.1:8080/webhooks/bolt", "events": ["order.updated"]}'""",
        r'"success":true.*"secret":"whsec_',
    ),
    Typed("curl -o openapi.json http://127.0.0.1:8090/openapi.json", ""),
)
OPERATING: Final = (
    Typed("python -m ingress check", "^ok +endpoints "),
    Typed(f"{PYTHON} -m worker check --settings", r"ENDPOINTS_FILE +endpoints\.toml +environment"),
    Typed(f"{PYTHON} -m worker --env-file .env", 'worker_started.*"concurrency":7', goes_on=True),
    Typed(
        f"WORKER_HANDLERS=shop.hooks:handlers ENDPOINTS_FILE=endpoints.toml {PYTHON} -m worker",
        'worker_started.*"handlers":1',
        goes_on=True,
    ),
)
AUTHORS: Final = "worker/README.md"
"""The page whose programs `test_author_docs.py` runs."""

ELSEWHERE: Final = ("deploy/recovery.md", *TEAMS)
"""The pages whose commands `tests/deploy/test_recovery_page.py` and `test_team_pages.py` type."""

TYPED: Final = (DEMO, DEVELOPING, DEPLOYING, SIMULATING, OPERATING)

NOT_TYPED: Final = {
    "make scale-demo": "takes minutes; test_scale_demo.py has a shorter one",
    "make test": "would type this, too",
    "make setup": "downloads; .ci/run types it, and leaves what the others are typed in here",
    "make check": ".ci/run types it",
    "make image": "downloads, and has to be root; .ci/run types it",
    ".ci/run": "runs this test",
    f"{PYTHON} -m ingress endpoints register acme --url https://your-host/webhooks/acme": (
        "asks, and is about a host of somebody's own; test_management.py has one"
    ),
    f"{PYTHON} -m ingress endpoints list": "the same",
    f"{PYTHON} -m ingress endpoints rotate acme": "the same",
    'eval "$(_SELLFERN_WORKER_COMPLETE=bash_source sellfern-worker)"': (
        "is for an interactive shell; test_typed.py completes as one does"
    ),
    'eval "$(_SELLFERN_INGRESS_COMPLETE=bash_source sellfern-ingress)"': "the same",
    "for user in ingress worker operator replica sentinel; "
    "do openssl rand -hex 32 > secrets/$user; done": (
        "is part of a deployment; tests/deploy/test_redis_users.py does it"
    ),
    "CONFIG_DIR=deploy/redis SECRETS_DIR=secrets STATE_DIR=/var/lib/redis "
    "sh deploy/redis/start.sh": "the same, in a folder that a test may write",
    "for user in ingress worker operator replica cluster; "
    "do openssl rand -hex 32 > secrets/$user; done": "the same",
    "CONFIG_DIR=deploy/redis SECRETS_DIR=secrets STATE_DIR=/var/lib/redis sh deploy/redis/start.sh "
    "cluster": (
        "is one of nine; tests/deploy/test_deployed_cluster.py makes a cluster so, and reshards it"
    ),
    "SECRETS_DIR=secrets sh deploy/redis/create-cluster.sh ADDRESS:6379 …": "the same",
    "export REDISCLI_AUTH=$(head -n 1 secrets/cluster)": "the same",
    "redis-cli --user cluster --cluster check ADDRESS:6379": "the same",
    "redis-cli --user cluster --cluster reshard ADDRESS:6379": "the same; there it asks nothing",
}
"""Commands, and why no test types them."""


def test_every_command_of_every_page_is_typed_or_has_its_reason_not_to_be() -> None:
    shown = {command for page in pages() for command in commands(page)}
    typed = {each.command for each in chain.from_iterable(TYPED)}
    typed.update(chain.from_iterable(map(commands, ELSEWHERE)))
    by_authors = {each.command for program in programs(AUTHORS) for each in program.typed}
    assert shown == typed | by_authors | {*new_password.COMMANDS} | NOT_TYPED.keys()


def test_a_page_is_typed_in_its_own_order() -> None:
    """Or else what a command needs might have been done by one that the page has further down."""
    for page in pages():
        places = {command: number for number, command in enumerate(commands(page))}
        for session in TYPED:
            order = [places[each.command] for each in session if each.command in places]
            assert order == sorted(order), page


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh one, with the handlers and the endpoints of the README."""
    folder = fresh_checkout(tmp_path_factory.mktemp("stranger") / "checkout")
    for language, title in (("python", "# shop/hooks.py"), ("toml", "[[endpoint]]")):
        (text,) = blocks("README.md", language)
        assert text.startswith(title)
        name = "shop/hooks.py" if language == "python" else "endpoints.toml"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def terminal(checkout: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A shell in it; what still runs at the end of the test ends."""
    with Terminal(checkout, environment_of(tmp_path / "home"), tmp_path) as opened:
        yield opened


def test_the_demo_is_one_command(terminal: Terminal) -> None:
    terminal.type_all(DEMO)


@pytest.mark.usefixtures("usual_ports")
def test_a_stranger_gets_from_a_clone_to_a_handler_that_has_handled_an_event(
    terminal: Terminal,
) -> None:
    terminal.type_all(DEVELOPING)
    assert "Everything is stopped" in terminal.interrupt()


def test_an_operator_gets_from_a_clone_to_an_event_that_was_handled(
    terminal: Terminal, fresh_redis_server: StartRedis
) -> None:
    """And from there to a Sellfern that sends more of them, asked by curl."""
    tool("curl")
    redis = fresh_redis_server(appendfsync="always").url
    port, sellfern = free_ports(2)
    terminal.environ |= {
        "PATH": f"{terminal.folder / '.venv' / 'bin'}:{terminal.environ['PATH']}",
        "INGRESS_PORT": str(port),
        "INGRESS_ADMIN_PORT": "0",
        "WORKER_ADMIN_PORT": "0",
    }
    where = f"--ingress http://127.0.0.1:{port} --port {sellfern}"
    terminal.places |= {
        "redis://127.0.0.1:6379/0": redis,
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "127.0.0.1:8090": f"127.0.0.1:{sellfern}",
        'endpoints.toml"': f'endpoints.toml {where}"',
        "whsec_…": "whsec_as_Sellfern_shows_it",
    }
    (terminal.folder / ".env").write_text("WORKER_CONCURRENCY=7\n")
    terminal.type_all(DEPLOYING, SIMULATING, OPERATING)
    assert (terminal.folder / "openapi.json").read_text().startswith("{")
