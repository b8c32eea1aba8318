"""Facts about pages over the dead letters of several partitions."""

from hypothesis import given
from hypothesis import strategies as st

from worker.operate.console.paging import Place, next_of_all

PLACES = st.builds(Place, st.integers(0, 3), st.sampled_from([b"a", b"b", b"c", b"d"]))


@given(lists=st.lists(st.sets(PLACES), max_size=4), most=st.integers(1, 5))
def test_pages_over_all_skip_none_and_repeat_none(lists: list[set[Place]], most: int) -> None:
    after: Place | None = None
    seen: list[tuple[Place, int]] = []
    while True:
        rest = {
            number: sorted((each for each in places if after is None or each < after), reverse=True)
            for number, places in enumerate(lists)
        }
        page = next_of_all(rest, most)
        if not page:
            break
        # Two partitions have the same place only where a stock producer has given both that job.
        seen += page
        after = page[-1][0]
    places = [place for place, _ in seen]
    assert places == sorted(places, reverse=True)
    assert set(places) == {place for each in lists for place in each}
