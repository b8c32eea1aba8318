"""Facts about the fields that say why an organization's events may wait."""

import pytest

from shared.queue.rules import Breaker, Hold, Profile

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("raw", "breaker"),
    [
        (None, Breaker()),
        ("closed:3:70:4", Breaker(failures=3)),
        ("open:1700000030000", Breaker("open", until=NOW + 30)),
        ("trying:org_a:0123", Breaker("trying", tried="org_a:0123")),
        ("trying:", Breaker("trying")),
        # What somebody's hand has written.
        ("", Breaker()),
        ("open", Breaker("open")),
        ("open:soon", Breaker("open")),
        ("open:inf", Breaker("open")),
        ("open:-1", Breaker("open")),
        ("closed:many:", Breaker()),
        ("closed:nan", Breaker()),
        ("ajar:7", Breaker()),
    ],
)
def test_a_breakers_field_is_read_in_one_way_whatever_is_there(
    raw: str | None, breaker: Breaker
) -> None:
    assert Breaker.read(raw) == breaker


@pytest.mark.parametrize(
    ("raw", "is_on", "why"),
    [
        (None, False, ""),
        ("1700000030000:429: slow down", True, "429: slow down"),
        ("1699999999999:over", False, "over"),
        ("1700003600001:of a clock that is ahead", False, "of a clock that is ahead"),
        ("soon:429", False, "429"),
        ("1e400:429", False, "429"),
        ("", False, ""),
    ],
)
def test_a_hold_lasts_while_the_scripts_say_so(raw: str | None, *, is_on: bool, why: str) -> None:
    hold = Hold.read(raw)
    assert (hold.is_on(NOW), hold.why) == (is_on, why)


@pytest.mark.parametrize(
    ("raw", "profile"),
    [
        (None, Profile()),
        ("5:0.25", Profile(5, 0.25)),
        (":2", Profile(None, 2.0)),
        ("many:heavy", Profile()),
        ("\u00b2:1", Profile()),
        ("5", Profile(5)),
    ],
)
def test_a_cap_and_a_weight_are_the_default_ones_where_none_can_be_read(
    raw: str | None, profile: Profile
) -> None:
    assert Profile.read(raw) == profile


@pytest.mark.parametrize(
    ("raw", "hold"),
    [
        ("20000:429\n5000", Hold(20, "429", 5)),
        ("20000:\n5000", Hold(20, "", 5)),
        ("20000:busy\nuntil 9\n5000", Hold(20, "busy\nuntil 9", 5)),
        ("20000:busy", Hold(20, "busy")),  # an earlier version's
        ("20000:busy\n", Hold(20, "busy\n")),
        (None, Hold()),
    ],
)
def test_a_hold_says_since_when_where_that_is_known(raw: str | None, hold: Hold) -> None:
    assert Hold.read(raw) == hold
