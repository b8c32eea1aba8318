"""What a script's text is made of."""

import re
from pathlib import Path

import pytest

from shared.queue import scripts

FOLDER = Path(scripts.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua"))
FUNCTION = re.compile(r"^(?:local )?function (\w+)", re.MULTILINE)
PRELUDE = [
    name for path in FOLDER.glob("prelude/*.lua") for name in FUNCTION.findall(path.read_text())
]


def functions(name: str) -> set[str]:
    return set(FUNCTION.findall(scripts.load(name).text))


def test_no_function_of_the_prelude_has_another_one_s_name() -> None:
    assert len(PRELUDE) > 70
    assert len(set(PRELUDE)) == len(PRELUDE)


def test_no_function_of_the_prelude_is_there_for_nobody() -> None:
    assert set(PRELUDE) <= set().union(*map(functions, NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_the_functions_that_it_calls_and_no_others(name: str) -> None:
    text = re.sub("--.*", "", scripts.load(name).text)
    for function in set(PRELUDE):
        defined = len(re.findall(rf"^(?:local )?function {function}\b", text, re.MULTILINE))
        named = len(re.findall(rf"\b{function}\b", text))
        assert (defined, named > defined) in {(0, False), (1, True)}


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_script_calls_is_made_in_front_of_what_calls_it(name: str) -> None:
    """Or it would be a global, which no script may read: it would end there in the midst."""
    for follows in (False, True):
        text = re.sub(r"--.*|'[^'\n]*'", "", scripts.load(name, follows=follows).text)
        firsts = dict[str, str]()
        for line in text.split("\n"):
            for found in re.finditer(r"(?<![.\w])\w+", line):
                firsts.setdefault(found[0], line[: found.end()])
        for line in (firsts[each] for each in PRELUDE if each in firsts):
            assert re.fullmatch(r"\s*local (?:function |(?:\w+, )*)\w+", line), line


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_known_before_it_is_made_is_made_once(name: str) -> None:
    """A second ``local`` would be another one, and the first stay nothing."""
    text = re.sub("--.*", "", scripts.load(name).text)
    _, first, *_ = text.split("\n")
    later = re.search(r"has_seldom = true\n  local (.*)", text)
    early = first.removeprefix("local ").split(", ") + (later[1].split(", ") if later else [])
    made = re.findall(r"^local (?:function )?([\w, ]+)", text.partition(first)[2], re.MULTILINE)
    assert {*early}.isdisjoint(", ".join(made).split(", "))


def test_what_adds_deliveries_knows_nothing_of_claims() -> None:
    assert "write_places" in functions("enqueue")
    assert not functions("enqueue") & {"held_claim", "remove_job", "take_mark", "ask"}


def test_only_what_asks_for_turns_makes_their_functions() -> None:
    text = scripts.load("settle").text
    always, seldom = text.split("function with_seldom()")
    assert "local function ask(" not in always
    assert "function ask_for_state(" in seldom
    assert always.startswith("#!lua flags=allow-oom\nlocal with_seldom, ask_for_state, ")
