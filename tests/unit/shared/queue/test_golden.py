"""Facts about names and scripts that are in use: in a deploy, old and new programs share them."""

import msgspec
import pytest

from shared.queue import scripts, writer
from shared.queue.keys import Names
from tests.unit.shared.queue.golden import FOLDER, NEED_ROOM, SCRIPTS, TAGS, described
from worker.operate import revival
from worker.pipeline import transitions


@pytest.mark.parametrize("file", TAGS)
def test_names_and_scripts_are_those_that_are_written_down(file: str) -> None:
    assert described(Names(TAGS[file])) == msgspec.json.decode((FOLDER / file).read_bytes())


def test_a_single_queue_s_scripts_are_those_that_the_programs_call() -> None:
    called = {"enqueue": writer._ENQUEUE, "replay": revival._REPLAY, "mark": transitions._MARK}
    for name, script in called.items():
        assert script == scripts.load(name, allow_oom=name not in NEED_ROOM)
        assert script.keys == ()
        assert scripts.of(script, Names()) is script


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_partition_s_script_looks_at_a_name_that_nothing_has_before_all_else(name: str) -> None:
    names = Names("021")
    script = scripts.of(scripts.load(name, allow_oom=False), names)
    shebang, first, _ = script.text.split("\n", 2)
    assert (shebang, first) == ("#!lua", "redis.call('EXISTS', 'sellfern:{021}:queue:never')")
    assert script.keys == ("sellfern:{021}:queue",)
    assert script.by_digest == ("EVALSHA", script.digest, 1, names.queue)
    assert script.by_text == ("EVAL", script.text, 1, names.queue)
    assert "'sellfern:" not in script.text.replace("'sellfern:{021}:", "")
