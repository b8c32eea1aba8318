"""Facts about the commands that manage endpoints, against a simulated Sellfern."""

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from deploy.sellfern import Fault
from ingress.management.exchange import Exchange
from shared.endpoints.endpoint import EndpointSecret
from shared.files import atomic as atomic_file
from tests.management_support import KEY_A, KEY_B, KEY_WITHOUT_SCOPE, Death, Desk, Died, desk

URL = "https://hooks.example.com"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as opened:
        yield opened


def test_an_endpoint_is_registered_and_its_secret_is_kept_but_not_shown(here: Desk) -> None:
    result = here.ok("register", "acme", "--organization", "org_a", "--yes")
    (remote,) = here.vendor.endpoints.of("org_a")
    assert remote.url == f"{URL}/webhooks/acme"
    assert remote.events == ("order.created", "order.status_changed", "order.updated")
    assert here.secrets() == {remote.secret.reveal(): False}
    assert here.here().organization_id == "org_a"
    assert stat.S_IMODE(here.file.stat().st_mode) == 0o600
    assert remote.secret.reveal() not in result.output + here.journal.read_text()
    assert KEY_A not in result.output + here.journal.read_text()
    assert not here.pending


def test_a_secret_is_shown_where_it_is_asked_for(here: Desk) -> None:
    row = json.loads(
        here.ok(
            "register", "acme", "--organization", "org_a", "--show-secret", "--yes", "--json"
        ).stdout
    )
    (remote,) = here.vendor.endpoints.of("org_a")
    assert row == {
        "action": "register",
        "endpoint": "acme",
        "organization": "org_a",
        "remote_id": remote.id,
        "url": remote.url,
        "secret": remote.secret.reveal(),
    }
    again = here.ok("register", "beta", "--event", "order.updated", "--show-secret", "--yes")
    assert again.stdout.splitlines()[1] == here.vendor.endpoints.of("org_a")[1].secret.reveal()


def test_the_file_keeps_its_comments_and_whoever_else_can_read_it_is_named(here: Desk) -> None:
    here.register(URL, name="first")
    here.file.write_text("# by hand\n" + here.file.read_text())
    here.file.chmod(0o644)
    result = here.ok("register", "acme", "--yes")
    assert here.file.read_text().startswith("# by hand\n")
    assert stat.S_IMODE(here.file.stat().st_mode) == 0o644
    assert "warning: others on this machine can read" in result.stderr


def test_without_a_yes_the_command_asks_and_a_no_changes_nothing(here: Desk) -> None:
    for text in ("n\n", ""):
        result = here.endpoints("register", "acme", "--organization", "org_a", text=text)
        assert result.exit_code == 1
        assert f"create an endpoint at Sellfern for org_a: {URL}/webhooks/acme" in result.stderr
        assert result.stdout == ""
    assert not here.vendor.requests
    assert not here.file.exists()
    assert here.endpoints("register", "acme", "--organization", "org_a", text="y\n").exit_code == 0


def test_a_secret_that_sellfern_doesn_t_show_is_copied_once_the_operator_has_it(
    tmp_path: Path,
) -> None:
    with desk(tmp_path, hide_secret=True) as here:
        first = here.endpoints("register", "acme", "--organization", "org_a", "--yes")
        assert first.exit_code == 4
        assert "copy the secret of" in first.stderr
        assert "--secret-file FILE" in first.stderr
        assert not here.file.exists()
        (remote,) = here.vendor.endpoints.of("org_a")

        options = ("register", "acme", "--organization", "org_a", "--secret-file")
        given = here.ok(*options, "-", text=f"{remote.secret.reveal()}\n")
        assert remote.secret.reveal() not in given.output
        assert here.secrets() == {remote.secret.reveal(): False}
        assert here.vendor.endpoints.of("org_a") == [remote]
        assert here.work == {}


def test_a_secret_that_the_operator_added_by_hand_ends_the_waiting(tmp_path: Path) -> None:
    with desk(tmp_path, hide_secret=True) as here:
        here.endpoints("register", "acme", "--organization", "org_a", "--yes")
        here.file.write_text('[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets=["x"]')
        result = here.endpoints("register", "acme", "--yes")
        assert result.exit_code == 2
        assert "one that isn't in" in result.stderr
        assert here.work == {}


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff", b""])
def test_a_secret_file_without_a_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    with desk(tmp_path, hide_secret=True) as here:
        file = tmp_path / "secret"
        file.write_bytes(content)
        options = ("register", "acme", "--organization", "org_a", "--yes", "--secret-file")
        result = here.endpoints(*options, str(file))
        assert result.exit_code == (2 if content else 4)
        assert "two" not in result.output
        assert not here.file.exists()


def test_an_endpoint_that_is_there_already_is_not_registered_again(here: Desk) -> None:
    here.register(URL)
    assert "one that isn't in" in here.endpoints("register", "acme", "--yes").stderr
    here.learn()
    here.register(URL, name="beta")
    here.file.write_text(here.file.read_text().partition('[[endpoint]]\nid = "beta"')[0])
    result = here.endpoints("register", "beta", "--yes")
    assert result.exit_code == 2
    assert "expected one that Sellfern doesn't have yet" in result.stderr
    assert not [seen for seen in here.vendor.requests if seen.method == "POST"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/b"], "ENDPOINT: expected 1 to 64 characters"),
        (["acme", "--url", "http://evil.example/webhooks/acme"], "--url: expected https://"),
        (["acme", "--url", f"{URL}/webhooks/other"], "--url: expected a URL that ends in"),
        (["acme", "--organization", "a:b"], "SELLFERN_ORGANIZATION: expected 1 to 64"),
    ],
)
def test_wrong_arguments_of_register_are_one_line(
    here: Desk, arguments: list[str], message: str
) -> None:
    options = [] if "--organization" in arguments else ["--organization", "org_a"]
    result = here.endpoints("register", *arguments, *options, "--yes")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert not here.vendor.requests


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"INGRESS_PUBLIC_URL": ""}, "INGRESS_PUBLIC_URL: expected the URL that Sellfern reaches"),
        ({"SELLFERN_API_KEY": ""}, "SELLFERN_API_KEY: expected an API key"),
        ({"SELLFERN_API_URL": "http://x.example"}, "SELLFERN_API_URL: expected https://"),
        ({"SELLFERN_DEADLINE": "soon"}, "SELLFERN_DEADLINE: expected a duration"),
        ({"REFERENCE_FILE": "/nowhere.toml"}, "REFERENCE_FILE: expected a file of reference data"),
        ({"SELLFERN_ORGANIZATION": ""}, "SELLFERN_ORGANIZATION: expected the organization"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    here: Desk, environ: dict[str, str], message: str
) -> None:
    result = here.endpoints(
        "register", "acme", "--yes", **{"SELLFERN_ORGANIZATION": "org_a", **environ}
    )
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "operation", "step"),
    [
        (["list"], "GET /webhooks", "compare them with the ones above"),
        (["enable", "acme"], "GET /webhooks", "enable it"),
        (["disable", "acme"], "GET /webhooks", "disable it"),
        (["remove", "acme"], "GET /webhooks", "remove it. Then take its [[endpoint]] table"),
        (["test", "acme"], "GET /webhooks", "send a test delivery"),
        (["deliveries", "acme"], "GET /webhooks", "look at its latest deliveries"),
        (["rotate", "acme"], "GET /webhooks", "1. Create a second endpoint"),
        (["rotate", "acme", "--abort"], "GET /webhooks", "1. Create a second endpoint"),
    ],
)
def test_what_the_reference_doesn_t_list_is_refused_by_name_with_the_step_by_hand(
    here: Desk, command: list[str], operation: str, step: str
) -> None:
    here.register(URL)
    result = here.endpoints(*command, SELLFERN_API_KEY="")  # not even a key is needed to say so
    assert result.exit_code == 3
    assert f"error: {operation} is not available" in result.stderr
    assert "In Sellfern's dashboard" in result.stderr
    assert step in result.stderr
    assert "python -m ingress reference import FILE" in result.stderr
    assert not here.vendor.requests


def test_registering_can_become_unavailable_as_well(here: Desk, tmp_path: Path) -> None:
    document = tmp_path / "openapi.yaml"
    document.write_text("openapi: 3.1.0\npaths:\n  /webhooks:\n    get: {}\n")
    assert here.run("reference", "import", str(document), "--yes").exit_code == 0
    result = here.endpoints("register", "acme", "--organization", "org_a", "--yes")
    assert result.exit_code == 3
    assert "POST /webhooks is not available" in result.stderr
    assert 'id = "acme"' in result.stderr


def test_an_event_that_the_reference_doesn_t_list_is_refused_by_name(here: Desk) -> None:
    options = ("--event", "ticket.created", "--organization", "org_a", "--yes")
    result = here.endpoints("register", "acme", *options)
    assert result.exit_code == 3
    assert "the event ticket.created is not available" in result.stderr
    assert not here.vendor.requests
    here.learn()
    here.ok("register", "acme", *options)


def test_list_shows_both_sides_and_marks_the_drift(here: Desk) -> None:
    here.learn()
    acme = here.register(URL)
    here.register("https://old.example.com", name="moved")
    here.vendor.endpoints.create("org_a", f"{URL}/webhooks/gone", ("order.updated",), secret="x")
    here.file.write_text(
        here.file.read_text()
        + '[[endpoint]]\nid = "new"\norganization_id = "org_a"\nsecrets = ["whsec_n"]\n'
    )
    rows = here.rows("list")
    assert {row["endpoint"]: row["drift"] for row in rows} == {
        "acme": "",
        "moved": "another address",
        "new": "not at Sellfern",
        None: "not in the endpoints file",
    }
    assert rows[0]["remote_id"] == acme.id
    assert rows[0]["enabled"] is True
    shown = here.ok("list").stdout
    for text in ("Endpoints of org_a", acme.id, "another address", "not in the endpoints file"):
        assert text in shown
    assert "whsec_" not in shown


def test_list_shows_what_is_here_where_sellfern_can_t_be_asked(here: Desk) -> None:
    here.register(URL)
    result = here.endpoints("list", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["endpoint"] == "acme"


def test_an_endpoint_is_disabled_and_enabled(here: Desk) -> None:
    here.learn()
    remote = here.register(URL)
    (row,) = here.rows("disable", "acme", "--yes")
    assert row["action"] == "disable"
    assert row["remote_id"] == remote.id
    assert not here.vendor.endpoints.of("org_a")[0].enabled
    assert f"{remote.id} is enabled" in here.ok("enable", "acme", "--yes").stdout
    assert here.vendor.endpoints.of("org_a")[0].enabled
    assert not here.pending


def test_an_endpoint_is_removed_on_both_sides_or_on_one(here: Desk) -> None:
    here.learn()
    for name in ("acme", "beta", "cato"):
        here.register(URL, name=name)
    here.ok("remove", "beta", "--keep-local", "--yes")
    here.ok("remove", "acme", "--yes")
    assert [each.url for each in here.vendor.endpoints.of("org_a")] == [f"{URL}/webhooks/cato"]
    assert 'id = "acme"' not in here.file.read_text()
    assert 'id = "beta"' in here.file.read_text()


def test_the_only_endpoint_stays_in_the_file(here: Desk) -> None:
    here.learn()
    here.register(URL)
    result = here.ok("remove", "acme", "--yes")
    assert "acme stays in" in result.stderr
    assert here.vendor.endpoints.of("org_a") == []
    assert here.secrets() == {"whsec_first_of_acme": False}


def test_a_test_delivery_and_its_record_are_shown(here: Desk) -> None:
    here.learn()
    here.register("http://127.0.0.1:1")
    (row,) = here.rows("test", "acme", "--yes")
    assert row["answer"]["status"] == "failed"
    assert "Sellfern answered {" in here.ok("test", "acme", "--yes").stdout
    rows = here.rows("deliveries", "acme")
    assert [each["status"] for each in rows] == ["failed", "failed"]
    assert "Deliveries to http://127.0.0.1:1/webhooks/acme" in here.ok("deliveries", "acme").stdout


def test_of_several_registrations_the_one_is_named_by_its_id(here: Desk) -> None:
    here.learn()
    first = here.register(URL)
    second = here.vendor.endpoints.create(
        "org_a", f"{first.url}?x=1", ("order.updated",), secret="whsec_x"
    )
    result = here.endpoints("disable", "acme", "--yes")
    assert result.exit_code == 1
    assert "expected one registration, got 2" in result.stderr
    here.ok("disable", "acme", "--id", second.id, "--yes")
    assert [each.enabled for each in here.vendor.endpoints.of("org_a")] == [True, False]


def test_a_key_of_one_organization_neither_shows_nor_changes_anothers_endpoints(
    here: Desk,
) -> None:
    here.learn()
    here.register(URL)
    theirs = here.register(URL, name="beta", organization="org_b")
    missing = here.endpoints("list")
    assert missing.exit_code == 2
    assert "SELLFERN_ORGANIZATION" in missing.stderr
    here.environ["SELLFERN_ORGANIZATION"] = "org_a"
    assert [row["endpoint"] for row in here.rows("list")] == ["acme"]
    for command in ("enable", "disable", "remove", "test", "deliveries", "rotate"):
        options = [] if command == "deliveries" else ["--yes"]
        result = here.endpoints(command, "beta", "--id", theirs.id, *options)
        assert result.exit_code == 2
        assert "an endpoint of org_a, which the API key belongs to" in result.stderr

    # Even who names the wrong organization sees and changes nothing of it.
    wrong = {"SELLFERN_ORGANIZATION": "org_b", "SELLFERN_API_KEY": KEY_A}
    rows = here.rows("list", **wrong)
    assert {row["endpoint"]: row["drift"] for row in rows} == {
        "beta": "not at Sellfern",
        None: "not in the endpoints file",
    }
    for command in ("disable", "remove"):
        assert here.endpoints(command, "beta", "--yes", **wrong).exit_code == 1
    assert here.vendor.endpoints.of("org_b") == [theirs]
    right = {**wrong, "SELLFERN_API_KEY": KEY_B}
    assert [row["remote_id"] for row in here.rows("list", **right)] == [theirs.id]


def test_an_endpoint_that_isn_t_in_the_file_is_named_with_the_nearest(here: Desk) -> None:
    here.learn()
    here.register(URL)
    result = here.endpoints("disable", "amce", "--yes")
    assert result.exit_code == 2
    assert "did you mean 'acme'" in result.stderr


@pytest.mark.parametrize(
    ("key", "message"),
    [("sk_test_unknown", "401 unauthorized"), (KEY_WITHOUT_SCOPE, "403 missing_scope")],
)
def test_a_refusal_is_a_line_with_its_request_id(here: Desk, key: str, message: str) -> None:
    here.learn()
    here.register(URL)
    result = here.endpoints("list", SELLFERN_API_KEY=key)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")
    assert "(request req_" in result.stderr
    assert key not in result.output


def test_an_unknown_outcome_is_told_listed_and_settled_by_the_same_command(here: Desk) -> None:
    here.vendor.faults.add(Fault("cut", when="after", operation="POST /webhooks", times=0))
    command = ("register", "acme", "--organization", "org_a", "--yes")
    result = here.endpoints(*command, SELLFERN_DEADLINE="200ms")
    assert result.exit_code == 4
    assert "Whether it took effect is unknown; the same command again asks" in result.stderr
    (row,) = here.rows("pending")
    assert row["operation"] == "POST /webhooks"
    assert [row["key"]] == here.keys()
    assert "whsec" not in here.journal.read_text()
    assert f"{URL}/webhooks/acme" in here.ok("pending").stdout

    other = here.endpoints(*command, "--disabled")
    assert other.exit_code == 4
    assert "an earlier request for this URL has no known outcome" in other.stderr

    here.vendor.faults.clear()
    here.ok(*command)
    (remote,) = here.vendor.endpoints.of("org_a")
    assert here.secrets() == {remote.secret.reveal(): False}
    assert here.keys() == [row["key"]]
    assert not here.pending


def test_a_request_is_forgotten_only_by_its_key(here: Desk) -> None:
    here.vendor.faults.add(Fault("cut", times=0))
    command = ("register", "acme", "--organization", "org_a", "--yes")
    here.endpoints(*command, SELLFERN_DEADLINE="100ms")
    wrong = here.endpoints("pending", "--forget", "x", "--yes")
    assert wrong.exit_code == 2
    assert len(here.pending) == 1
    (row,) = here.rows("pending")
    assert here.endpoints("pending", "--forget", row["key"], text="n\n").exit_code == 1
    here.ok("pending", "--forget", row["key"], "--yes")
    assert here.rows("pending") == []
    here.vendor.faults.clear()
    here.ok(*command)
    assert len(here.keys()) == 2


def test_a_day_later_the_operator_is_told_to_look_first(here: Desk) -> None:
    here.vendor.faults.add(Fault("cut", when="after", times=0))
    command = ("register", "acme", "--organization", "org_a", "--yes")
    here.endpoints(*command, SELLFERN_DEADLINE="100ms")
    contents = json.loads(here.journal.read_bytes())
    contents["pending"][0]["created_at"] -= 86_400
    here.journal.write_text(json.dumps(contents))
    sent = len(here.vendor.requests)
    result = here.endpoints(*command)
    assert result.exit_code == 4
    assert "Look at Sellfern whether it took effect" in result.stderr
    assert len(here.vendor.requests) == sent


def test_a_corrupt_journal_stops_every_command_that_would_need_it(here: Desk) -> None:
    here.learn()
    here.register(URL)
    here.journal.parent.mkdir()
    here.journal.write_text("{")
    for command in (["list"], ["disable", "acme", "--yes"], ["pending"]):
        result = here.endpoints(*command)
        assert result.exit_code == 1
        assert "expected a journal as this version writes it" in result.stderr
    assert not [seen for seen in here.vendor.requests if seen.method != "GET"]


def test_an_answer_that_can_t_be_kept_is_asked_for_again(here: Desk) -> None:
    """The disk is full when the secret has to be written; Sellfern shows it once, or by replay."""
    command = ("register", "acme", "--organization", "org_a", "--yes")
    draft = here.file.with_name(".endpoints.toml.new")
    draft.mkdir()
    result = here.endpoints(*command)
    assert result.exit_code == 2
    assert "a file that can be replaced" in result.stderr
    draft.rmdir()
    here.ok(*command)
    (remote,) = here.vendor.endpoints.of("org_a")
    assert EndpointSecret(remote.secret).fingerprint == here.here().secrets[0].fingerprint
    assert len(here.keys()) == 1


def dies(here: Desk, patch: pytest.MonkeyPatch, at: int, *command: str) -> bool:
    """Run a command that dies at a point; whether there was such a point."""
    death = Death(at)
    with patch.context() as within:
        within.setattr(atomic_file, "_write", death.after(atomic_file._write))
        within.setattr(atomic_file, "_sync_folder", death.after(atomic_file._sync_folder))
        within.setattr(Exchange, "_attempt", death.around(Exchange._attempt))
        try:
            here.ok(*command)
        except Died:
            return True
    return False


def test_a_registration_that_dies_at_any_point_is_completed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        with desk(folder) as here:
            here.learn()
            command = ("register", "acme", "--organization", "org_a", "--yes")
            if not dies(here, monkeypatch, at, *command):
                break
            again = here.endpoints(*command)
            if again.exit_code:  # it had died after its end
                assert "one that isn't in" in again.stderr
            (remote,) = here.vendor.endpoints.of("org_a")
            assert here.secrets() == {remote.secret.reveal(): False}
            assert len(here.keys()) == 1
            assert not here.pending
    assert at > 8


def test_a_removal_that_dies_at_any_point_is_completed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        with desk(folder) as here:
            here.learn()
            here.register(URL)
            here.register(URL, name="beta")
            if not dies(here, monkeypatch, at, "remove", "acme", "--yes"):
                break
            again = here.endpoints("remove", "acme", "--yes")
            if again.exit_code:
                assert "ENDPOINT: expected one of the endpoints file" in again.stderr
            assert [each.url for each in here.vendor.endpoints.of("org_a")] == [
                f"{URL}/webhooks/beta"
            ]
            assert "acme" not in here.file.read_text()
            assert len(here.keys()) == 1
            assert not here.pending
            assert here.work == {}
    assert at > 8


def test_what_an_answer_says_can_t_steer_the_terminal(here: Desk) -> None:
    here.learn()
    here.register(URL)
    here.vendor.endpoints.create("org_a", f"{URL}/webhooks/x", ("order.updated",), secret="x")
    (_, stranger) = here.vendor.endpoints.of("org_a")
    here.vendor.endpoints._endpoints[stranger.id] = replace(stranger, url="https://h/\x1b[2J[red]")
    for options in ([], ["--json"]):
        assert "\x1b" not in here.ok("list", *options).output
