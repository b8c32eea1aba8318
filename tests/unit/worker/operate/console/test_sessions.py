"""Facts about the console's sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operate.console import sessions as module
from worker.operate.console.sessions import SECONDS, Sessions, same_secret


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_what_was_sealed() -> None:
    sessions = Sessions()
    session = sessions.begin("Ada Ä", has_token=True)
    assert sessions.open(sessions.seal(session)) == session


def test_a_session_ends() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    sealed = sessions.seal(sessions.begin("Ada", has_token=True))
    clock.now += SECONDS - 1
    assert sessions.open(sealed) is not None
    clock.now += 1
    assert sessions.open(sealed) is None


def test_a_session_of_another_process_is_none() -> None:
    sealed = Sessions().seal(Sessions().begin("Ada", has_token=True))
    assert Sessions().open(sealed) is None


def test_a_session_that_was_ended_is_none_though_its_cookie_is_kept() -> None:
    sessions = Sessions()
    ada, bob = (sessions.begin(name, has_token=True) for name in ("Ada", "Bob"))
    kept = [sessions.seal(each) for each in (ada, bob)]
    sessions.end(ada)
    assert [sessions.open(each) for each in kept] == [None, bob]


def test_however_many_are_ended_none_comes_back_and_little_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_ENDED", 50)
    clock = Clock()
    sessions = Sessions(clock)
    first = sessions.seal(one := sessions.begin("Ada", has_token=True))
    sessions.end(one)
    for _ in range(51):
        sessions.end(sessions.begin("Ada", has_token=True))
        assert len(sessions._ended) <= 50
    assert sessions.open(first) is None
    clock.now += SECONDS
    sessions.end(sessions.begin("Ada", has_token=True))
    assert len(sessions._ended) == 1


def test_a_known_browser_is_no_session_and_no_other_name() -> None:
    sessions = Sessions()
    sealed = sessions.seal_browser(may_act=True)
    name, _, signature = sealed.partition(".")
    assert sessions.known_browser(sealed, may_act=True) == name
    assert sessions.open(sealed) is None
    for other in ("", ".", f"x.{signature}", f"{name}.", Sessions().seal_browser(may_act=True)):
        assert sessions.known_browser(other, may_act=True) is None
    sealed = sessions.seal(sessions.begin("Ada", has_token=True))
    assert sessions.known_browser(sealed, may_act=True) is None


def test_a_browser_that_may_act_may_look_as_well_and_not_the_other_way() -> None:
    sessions = Sessions()
    acts, looks = sessions.seal_browser(may_act=True), sessions.seal_browser(may_act=False)
    assert sessions.known_browser(acts, may_act=False)
    assert sessions.known_browser(looks, may_act=False)
    assert sessions.known_browser(looks, may_act=True) is None


def test_a_changed_session_is_none() -> None:
    sessions = Sessions()
    sealed = sessions.seal(sessions.begin("Ada", has_token=False))
    for place in range(len(sealed)):
        other = "A" if sealed[place] != "A" else "B"
        assert sessions.open(sealed[:place] + other + sealed[place + 1 :]) is None


@given(st.text())
def test_any_other_text_is_no_session(text: str) -> None:
    sessions = Sessions()
    assert sessions.open(text) is None
    assert not sessions.is_form_token(sessions.begin("Ada", has_token=True), text)


def test_a_forms_token_is_its_sessions() -> None:
    sessions = Sessions()
    ada, bob = (sessions.begin(name, has_token=True) for name in ("Ada", "Bob"))
    assert sessions.is_form_token(ada, sessions.form_token(ada))
    assert not sessions.is_form_token(ada, sessions.form_token(bob))
    assert sessions.form_token(ada) not in sessions.seal(ada)


def test_secrets_are_the_same_or_not() -> None:
    assert same_secret("ä", "ä")
    assert not same_secret("ä", "a")
    assert not same_secret("\udcff", "a")
