"""Facts about rotating a secret: nothing is refused, and every step can be run again."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic, sleep, time

import pytest
from aiohttp import ClientSession

from deploy.sellfern import Fault
from ingress.http.secret_use import proof
from ingress.management import rotation as rotating
from ingress.management.exchange import Exchange
from shared.files import atomic as atomic_file
from shared.settings.secret import Secret
from tests.management_support import PATIENCE, Death, Desk, Died, Ingress, desk, ingress

FIRST = "whsec_first_of_acme"
ROTATE = ("rotate", "acme", "--test", "--yes")
ABORT = ("rotate", "acme", "--abort", "--yes")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "_POLL", 0.01)


class Place:
    """A desk, an ingress that reads its file, and one endpoint that both sides have."""

    def __init__(self, here: Desk, receiving: Ingress) -> None:
        self.here = here
        self.ingress = receiving
        self.first_id = ""
        here.environ["INGRESS_ADMIN_PORT"] = receiving.admin_url.rpartition(":")[2]
        here.learn()
        self.reset()

    def reset(self) -> None:
        """Begin anew with one registration and one secret."""
        for remote in self.here.vendor.endpoints.of("org_a"):
            self.here.vendor.endpoints.remove(remote)
        self.here.file.unlink(missing_ok=True)
        self.first_id = self.here.register(self.ingress.url).id
        end = monotonic() + PATIENCE
        while self.ingress.secrets("acme") != [FIRST]:
            assert monotonic() < end
            sleep(0.001)

    @property
    def remotes(self) -> list[str]:
        """The ids of what Sellfern has."""
        return [each.id for each in self.here.vendor.endpoints.of("org_a")]

    @property
    def new_secret(self) -> str:
        """The secret of what Sellfern has, once that is one."""
        (remote,) = self.here.vendor.endpoints.of("org_a")
        return remote.secret.reveal()

    @property
    def has_open_ends(self) -> bool:
        """Whether the journal says that something isn't finished."""
        return bool(self.here.pending or self.here.work)

    def deliver(self) -> list[int | None]:
        """Let an event happen; the statuses of its deliveries."""
        made = self.here.thread.call(
            self.here.vendor.deliver("order.updated", organization="org_a")
        )
        return [delivery.response_status for delivery in made]

    def is_rotated(self) -> bool:
        """Whether only the new registration and its secret are left to last."""
        secrets = self.here.secrets()
        return (
            not self.has_open_ends
            and self.first_id not in self.remotes
            and secrets == {FIRST: True, self.new_secret: False}
            and next(iter(secrets)) == self.new_secret
        )

    def is_as_before(self) -> bool:
        """Whether only the first registration is left."""
        lasting = [secret for secret, ends in self.here.secrets().items() if not ends]
        return not self.has_open_ends and self.remotes == [self.first_id] and lasting == [FIRST]


OpenPlace = Callable[..., Place]


@pytest.fixture
def open_place(tmp_path: Path) -> Iterator[OpenPlace]:
    """Open places, each in a folder of its own."""
    numbers = count()
    with ExitStack() as opened:

        def start(**knobs: object) -> Place:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            here = opened.enter_context(desk(folder, **knobs))
            here.register("http://127.0.0.1:1")  # an ingress doesn't start without an endpoint
            return Place(here, opened.enter_context(here.thread.open(ingress(here.file))))

        yield start


def test_a_rotation_leaves_one_registration_and_gives_the_old_secret_an_end(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    started = time()
    result = place.here.ok(*ROTATE, "--grace", "2h", "--json")
    row = json.loads(result.stdout)
    assert row == {
        "action": "rotate",
        "endpoint": "acme",
        "organization": "org_a",
        "remote_id": place.remotes[0],
        "removed_id": place.first_id,
    }
    assert place.is_rotated()
    (remote,) = place.here.vendor.endpoints.of("org_a")
    assert remote.url == f"{place.ingress.url}/webhooks/acme?rotation=2"
    assert remote.enabled
    old = place.here.here().secrets[1]
    assert old.until is not None
    assert started + 7200 <= old.until.timestamp() <= time() + 7201
    assert place.new_secret not in result.output
    assert FIRST not in result.output
    assert place.new_secret not in place.here.journal.read_text()


def test_the_plan_names_every_step_and_a_no_changes_nothing(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    result = place.here.endpoints("rotate", "acme", text="n\n")
    assert result.exit_code == 1
    for text in ("register http", "?rotation=2", "every ingress", place.first_id, "3600 s"):
        assert text in result.stderr
    assert place.is_as_before()
    assert not place.here.keys()


def test_the_second_registration_gets_nothing_before_every_ingress_knows_its_secret(
    open_place: OpenPlace,
) -> None:
    """It is created disabled, and enabled once the file has been read."""
    place = open_place()
    place.here.ok(*ROTATE)
    place.here.thread.call(place.here.vendor.settled())
    requests = [(seen.method, seen.outcome) for seen in place.here.vendor.requests]
    assert [each for each in requests if each[0] != "GET"] == [
        ("POST", "201"),
        ("PATCH", "200"),
        ("POST", "200"),
        ("DELETE", "200"),
    ]
    assert len(place.ingress.writer.deliveries) == 1
    assert all(delivery.status == "delivered" for delivery in place.here.vendor.deliveries)


def test_a_second_rotation_has_the_next_number_and_clears_what_has_ended(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    place.here.ok(*ROTATE, "--grace", "0")
    second = place.new_secret
    sleep_until(place.here.here().secrets[1].until)
    result = place.here.ok(*ROTATE)
    assert "secrets that have ended leave the file" in result.stderr
    assert place.here.secrets() == {place.new_secret: False, second: True}
    (remote,) = place.here.vendor.endpoints.of("org_a")
    assert remote.url.endswith("?rotation=3")


def sleep_until(moment: datetime | None) -> None:
    """Wait for a moment, which is at most a second away."""
    assert moment is not None
    remaining = (moment - datetime.now(UTC)).total_seconds()
    assert remaining <= 1
    sleep(max(0.0, remaining))


def test_without_a_delivery_the_rotation_waits_and_a_later_run_goes_on(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    result = place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    assert result.exit_code == 4
    assert "Run rotate again to go on, or rotate --abort" in result.stderr
    assert place.here.secrets()[FIRST] is False
    assert len(place.here.secrets()) == 2
    assert len(place.remotes) == 2
    assert {row["drift"] for row in place.here.rows("list")} == {"rotating, another address"}

    assert place.deliver() == [202, 202]  # to both, of the same bytes: one job
    place.here.ok("rotate", "acme", "--wait", "5s", "--yes")
    assert place.is_rotated()


def test_the_first_registration_stays_while_sellfern_retries_a_delivery_to_it(
    open_place: OpenPlace,
) -> None:
    place = open_place(attempts=100_000, backoff=0.02, backoff_cap=0.02)
    place.ingress.writer.failure = RuntimeError("not now")
    publishing = place.here.vendor.publish("order.updated", "org_a")
    _, (delivery,) = place.here.thread.call(publishing)
    end = monotonic() + PATIENCE
    while not delivery.attempts:
        assert monotonic() < end
        sleep(0.01)
    result = place.here.endpoints(*ROTATE, "--wait", "300ms")
    assert result.exit_code == 4
    assert f"Sellfern retries no delivery to {place.first_id} any more" in result.stderr
    assert place.first_id in place.remotes

    place.ingress.writer.failure = None
    place.here.ok(*ROTATE)
    assert place.is_rotated()
    assert delivery.status == "delivered"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ingress", "http://127.0.0.1:1"), "expected the admin site of a running ingress"),
        (("--ingress", "ftp://x"), "--ingress: expected https://"),
        (("--wait", "soon"), "expected a duration"),
        (("--id", "nothing"), "and the id nothing"),
    ],
)
def test_what_can_t_work_is_refused_before_anything_changes(
    open_place: OpenPlace, arguments: tuple[str, ...], message: str
) -> None:
    place = open_place()
    result = place.here.endpoints(*ROTATE, *arguments)
    assert result.exit_code in {1, 2}
    assert message in result.stderr
    assert place.is_as_before()


def test_an_ingress_that_reads_another_file_is_noticed_before_anything_changes(
    open_place: OpenPlace,
) -> None:
    place, other = open_place(), open_place()
    place.here.file.write_text(place.here.file.read_text().replace(FIRST, "whsec_of_this_file"))
    result = place.here.endpoints(*ROTATE, "--ingress", other.ingress.admin_url)
    assert result.exit_code == 1
    assert "do they read this file?" in result.stderr
    assert not place.here.keys()


def test_an_ingress_whose_port_isn_t_known_has_to_be_named(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    result = place.here.endpoints(*ROTATE, INGRESS_ADMIN_PORT="0")
    assert result.exit_code == 2
    assert "--ingress: expected it, since INGRESS_ADMIN_PORT is 0" in result.stderr
    place.here.ok(*ROTATE, "--ingress", place.ingress.admin_url, INGRESS_ADMIN_PORT="0")
    assert place.is_rotated()


def test_an_endpoint_that_left_the_file_meanwhile_stops_the_rotation(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    text = place.here.file.read_text()
    place.here.file.write_text(text.replace('id = "acme"', 'id = "other"'))
    result = place.here.endpoints(*ROTATE)
    assert result.exit_code == 2
    assert "ENDPOINT: expected one of the endpoints file" in result.stderr


def test_a_new_secret_that_left_the_file_meanwhile_stops_the_rotation(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    (new,) = place.here.secrets().keys() - {FIRST}
    text = place.here.file.read_text()
    place.here.file.write_text(text.replace(new, "whsec_another"))
    result = place.here.endpoints(*ROTATE)
    assert result.exit_code == 1
    assert "acme: expected its new secret in" in result.stderr
    place.here.file.write_text(text)
    place.here.ok(*ROTATE)
    assert place.is_rotated()


def test_a_secret_that_somebody_adds_by_hand_meanwhile_stays(open_place: OpenPlace) -> None:
    """The rotation ends only the secrets that it began with."""
    place = open_place()
    place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    text = place.here.file.read_text()
    place.here.file.write_text(text.replace("secrets = [", 'secrets = ["whsec_by_hand", '))
    place.here.ok(*ROTATE)
    assert place.here.secrets() == {
        "whsec_by_hand": False,
        place.new_secret: False,
        FIRST: True,
    }


def test_an_endpoint_that_leaves_the_file_between_two_steps_stops_the_rotation(
    open_place: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place()
    enable = rotating.Rotating._enable

    async def enable_and_leave(self: rotating.Rotating, rotation: rotating.Rotation) -> object:
        following = await enable(self, rotation)
        text = place.here.file.read_text()
        place.here.file.write_text(text.replace('id = "acme"', 'id = "other"'))
        return following

    monkeypatch.setattr(rotating.Rotating, "_enable", enable_and_leave)
    result = place.here.endpoints(*ROTATE)
    assert result.exit_code == 1
    assert "acme is no longer in" in result.stderr
    assert place.first_id in place.remotes


def test_a_secret_that_sellfern_doesn_t_show_is_copied_in_between(
    open_place: OpenPlace,
) -> None:
    place = open_place(hide_secret=True)
    result = place.here.endpoints(*ROTATE)
    assert result.exit_code == 4
    assert "--secret-file FILE" in result.stderr
    assert place.here.secrets() == {FIRST: False}
    second = place.here.vendor.endpoints.of("org_a")[1]
    assert not second.enabled
    wrong = place.here.endpoints(*ROTATE, "--secret-file", "-", text=FIRST)
    assert wrong.exit_code == 1
    assert "expected the new secret, got one that it has already" in wrong.stderr
    place.here.ok(*ROTATE, "--secret-file", "-", text=second.secret.reveal())
    assert place.is_rotated()


def test_without_a_rotation_there_is_nothing_to_go_back_from(
    open_place: OpenPlace,
) -> None:
    result = open_place().here.endpoints(*ABORT)
    assert result.exit_code == 1
    assert "expected a rotation under way, got none" in result.stderr


def test_an_abort_asks_takes_the_second_registration_back_and_leaves_its_secret_a_while(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    assert place.here.endpoints("rotate", "acme", "--abort", text="n\n").exit_code == 1
    assert len(place.remotes) == 2
    row = json.loads(place.here.ok(*ABORT, "--json").stdout)
    assert row["action"] == "abort"
    assert row["remote_id"] == place.first_id
    assert place.is_as_before()
    assert len(place.here.secrets()) == 2  # deliveries on their way may still bear the new one
    assert place.deliver() == [202]


def test_an_abort_that_has_begun_can_only_be_ended(open_place: OpenPlace) -> None:
    place = open_place()
    place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
    place.here.vendor.faults.add(Fault("cut", when="after", operation="DELETE", times=0))
    assert place.here.endpoints(*ABORT, SELLFERN_DEADLINE="100ms").exit_code == 4
    result = place.here.endpoints(*ROTATE)
    assert result.exit_code == 1
    assert "run rotate --abort again" in result.stderr
    place.here.vendor.faults.clear()
    place.here.ok(*ABORT)
    assert place.is_as_before()


def test_once_the_removal_has_begun_there_is_no_way_back(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    place.here.vendor.faults.add(Fault("cut", when="after", operation="DELETE", times=0))
    assert place.here.endpoints(*ROTATE, SELLFERN_DEADLINE="2s").exit_code == 4
    result = place.here.endpoints(*ABORT)
    assert result.exit_code == 1
    assert "may be gone already; run rotate to go on" in result.stderr
    place.here.vendor.faults.clear()
    place.here.ok(*ROTATE)
    assert place.is_rotated()


def dies(place: Place, patch: pytest.MonkeyPatch, at: int, command: tuple[str, ...]) -> bool:
    """Run a command that dies at a point; whether there was such a point."""
    death = Death(at)
    with patch.context() as within:
        within.setattr(atomic_file, "_write", death.after(atomic_file._write))
        within.setattr(atomic_file, "_sync_folder", death.after(atomic_file._sync_folder))
        within.setattr(Exchange, "_attempt", death.around(Exchange._attempt))
        try:
            result = place.here.endpoints(*command)
        except Died:
            return True
    assert result.exit_code == 0, result.output
    return False


def test_a_rotation_that_dies_at_any_point_goes_on_where_it_was(
    open_place: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place()
    for at in count(1):
        if not dies(place, monkeypatch, at, ROTATE):
            break
        if place.has_open_ends or place.is_as_before():
            place.here.ok(*ROTATE)
        assert place.is_rotated(), at
        assert place.deliver() == [202]
        place.reset()
    assert at > 30


def test_a_rotation_that_dies_at_any_point_can_go_back_until_the_removal(
    open_place: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[str] = []
    place = open_place()
    for at in count(1):
        if not dies(place, monkeypatch, at, ROTATE):
            break
        result = place.here.endpoints(*ABORT)
        if result.exit_code == 0:
            assert place.is_as_before(), at
            outcomes.append("back")
        elif "got none" in result.stderr:
            assert place.is_as_before() or place.is_rotated(), at
            outcomes.append("nothing")
        else:
            assert "may be gone already" in result.stderr
            place.here.ok(*ROTATE)
            assert place.is_rotated(), at
            outcomes.append("forward")
        place.reset()
    assert list(dict.fromkeys(outcomes)) == ["nothing", "back", "forward"]
    assert outcomes.count("back") > 20


def test_going_back_that_dies_at_any_point_is_ended_by_running_it_again(
    open_place: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place()
    for at in count(1):
        place.here.endpoints("rotate", "acme", "--wait", "0", "--yes")
        if not dies(place, monkeypatch, at, ABORT):
            break
        result = place.here.endpoints(*ABORT)
        assert result.exit_code == 0 or "got none" in result.stderr
        assert place.is_as_before(), at
        place.reset()
    assert at > 8


def test_the_admin_site_tells_of_secrets_without_telling_them(
    open_place: OpenPlace,
) -> None:
    place = open_place()
    assert place.deliver() == [202]

    async def ask(path: str) -> tuple[int, str]:
        async with (
            ClientSession() as session,
            session.get(f"{place.ingress.admin_url}{path}") as response,
        ):
            return response.status, await response.text()

    status, text = asyncio.run(ask("/endpoints/acme"))
    secret = place.here.here().secrets[0]
    row = {"proven": False, "active": True, "until": None, "verified": 1}
    assert status == 200
    assert json.loads(text) == {"secrets": [row]}
    assert FIRST not in text
    assert secret.fingerprint not in text
    for value, is_proven in ((secret.value, True), (Secret("whsec_guess"), False)):
        query = f"nonce=n&proof={proof(value, 'acme', 'n')}"
        _, text = asyncio.run(ask(f"/endpoints/acme?{query}"))
        assert json.loads(text) == {"secrets": [row | {"proven": is_proven}]}
    for query in ("proof=%ff%00&nonce=%ed%a0%bd", "proof=&nonce=", "nonce=n", "proof=%C3%A4"):
        status, text = asyncio.run(ask(f"/endpoints/acme?{query}"))
        assert (status, json.loads(text)) == (200, {"secrets": [row]}), query
    assert asyncio.run(ask("/endpoints/nobody")) == (404, '{"secrets":[]}')
