"""A secret that can't be had concerns its endpoint only, which keeps it for a day."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from shared.endpoints.kept_secrets import KEPT_SECONDS, KeptSecrets, Known, SecretMemory
from shared.endpoints.secret_source import SecretFetcher
from shared.endpoints.text import read_tables
from shared.files.background import Pace

PACE = Pace(rest=0)


def table(endpoint: str, organization: str = "org_1", secrets: str = '{ file = "acme" }') -> str:
    return (
        f'[[endpoint]]\nid = "{endpoint}"\norganization_id = "{organization}"\n'
        f"secrets = [{secrets}]\n"
    )


@dataclass
class Place:
    """Some secret files, and a clock."""

    files: dict[str, str] = field(default_factory=dict)
    now: float = 1e9

    def __post_init__(self) -> None:
        self.memory = SecretMemory()
        fetcher = SecretFetcher({}, self._read)
        self.secrets = KeptSecrets(fetcher, self.memory, clock=lambda: self.now)

    def _read(self, path: Path) -> str:
        if path.name not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        return self.files[path.name]

    def known(self, *tables: str) -> dict[str, Known]:
        placed = read_tables("".join(tables), Path("endpoints.toml"), pace=PACE).placed
        return self.secrets.of(placed, PACE)

    def active(self, *tables: str) -> dict[str, list[str]]:
        """What verifies for each endpoint now."""
        return {
            name: [each.value.reveal() for each in known.secrets if each.is_active(self.now)]
            for name, known in self.known(*tables).items()
        }


def test_what_was_never_had_is_missing_and_concerns_no_other() -> None:
    place = Place({"beta": "whsec_b"})
    known = place.known(table("acme"), table("beta", secrets='{ file = "beta" }'))
    assert [each.value.reveal() for each in known["beta"].secrets] == ["whsec_b"]
    assert (known["beta"].missing, known["acme"].secrets) == ((), ())
    (missing,) = known["acme"].missing
    assert (missing.whose, missing.cause, missing.kept_until) == (
        "endpoint acme",
        "unreadable",
        None,
    )
    assert str(missing.error) == (
        "ENDPOINTS_FILE (endpoints.toml) line 4: expected secrets to be a secret in a readable "
        "file, got 'acme' (No such file or directory)"
    )


def test_a_lost_secret_holds_for_a_day_and_no_longer() -> None:
    place = Place({"acme": "whsec_a"})
    place.known(table("acme"))
    del place.files["acme"]
    assert place.active(table("acme")) == {"acme": ["whsec_a"]}
    lost_at = place.now
    assert place.memory.deadline == lost_at + KEPT_SECONDS
    place.now += KEPT_SECONDS - 1
    known = place.known(table("acme"))["acme"]
    assert known.missing[0].kept_until == lost_at + KEPT_SECONDS
    assert known.secrets[0].is_active(place.now)
    assert not known.secrets[0].is_active(place.now + 1)  # even if nobody looked again
    place.now += 1
    assert place.active(table("acme")) == {"acme": []}
    assert place.memory.deadline == float("inf")


def test_one_that_comes_back_has_a_whole_day_again() -> None:
    place = Place({"acme": "whsec_a"})
    place.known(table("acme"))
    for _ in range(2):
        text = place.files.pop("acme")
        place.known(table("acme"))
        place.now += KEPT_SECONDS - 1
        assert place.active(table("acme")) == {"acme": ["whsec_a"]}
        place.files["acme"] = text
        place.known(table("acme"))


def test_a_secret_that_was_spoilt_is_kept_as_well() -> None:
    place = Place({"acme": "whsec_a"})
    place.known(table("acme"))
    place.files["acme"] = "${ACME}"
    known = place.known(table("acme"))["acme"]
    assert [each.value.reveal() for each in known.secrets] == ["whsec_a"]
    assert known.missing[0].cause == "unusable"


def test_an_earlier_end_of_its_own_stays() -> None:
    place = Place({"acme": "whsec_a"})
    end = datetime.fromtimestamp(place.now + 60, UTC)
    lines = table("acme", secrets=f'{{ file = "acme", until = {end.isoformat()} }}')
    place.known(lines)
    del place.files["acme"]
    (secret,) = place.known(lines)["acme"].secrets
    assert secret.until == end


def test_taking_an_entry_out_of_the_file_revokes_it_at_once() -> None:
    place = Place({"old": "whsec_old", "new": "whsec_new"})
    place.known(table("acme", secrets='{ file = "new" }, { file = "old" }'))
    place.files.clear()
    assert place.active(table("acme", secrets='{ file = "new" }')) == {"acme": ["whsec_new"]}
    both = table("acme", secrets='{ file = "new" }, { file = "old" }')
    assert place.active(both) == {"acme": ["whsec_new"]}


def test_what_one_organization_had_never_verifies_for_another() -> None:
    place = Place({"acme": "whsec_a"})
    place.known(table("acme", "org_1"))
    del place.files["acme"]
    assert place.active(table("acme", "org_2")) == {"acme": []}


def test_a_secret_of_another_organization_is_none_and_the_owner_keeps_it() -> None:
    place = Place({"a": "whsec_a", "b": "whsec_b"})
    first = table("aaa", "org_1", '{ file = "a" }')
    second = table("bbb", "org_2", '{ file = "b" }')
    place.known(first, second)
    place.files["a"] = "whsec_b"  # the first one changes, and is the first in the file, too
    known = place.known(first, second)
    assert [each.value.reveal() for each in known["aaa"].secrets] == ["whsec_a"]
    assert [each.value.reveal() for each in known["bbb"].secrets] == ["whsec_b"]
    assert known["bbb"].missing == ()
    assert "one of organization org_2 as well" in str(known["aaa"].missing[0].error)


def test_two_that_swap_their_secrets_never_share_one() -> None:
    place = Place({"a": "whsec_a", "b": "whsec_b"})
    lines = (table("aaa", "org_1", '{ file = "a" }'), table("bbb", "org_2", '{ file = "b" }'))
    place.known(*lines)
    place.files = {"a": "whsec_b", "b": "whsec_a"}
    active = place.active(*lines)
    assert not set(active["aaa"]) & set(active["bbb"])


def test_at_the_start_the_later_one_of_two_with_one_secret_has_none() -> None:
    place = Place({"a": "whsec_a", "b": "whsec_a"})
    first = table("aaa", "org_1", '{ file = "a" }')
    second = table("bbb", "org_2", '{ file = "b" }')
    assert place.active(first, second) == {"aaa": ["whsec_a"], "bbb": []}


def test_what_another_organization_has_taken_meanwhile_is_not_recalled() -> None:
    place = Place({"a": "whsec_a", "b": "whsec_b", "c": "whsec_c"})
    lines = [table(name * 3, f"org_{name}", f'{{ file = "{name}" }}') for name in ("b", "a", "c")]
    place.known(*lines)
    place.files |= {"b": "whsec_a", "a": "whsec_c"}  # b takes what a gives up for one of c
    assert place.active(*lines) == {"bbb": ["whsec_a"], "aaa": [], "ccc": ["whsec_c"]}
