"""Facts about the delay between two attempts."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.sellfern.deliverer import retry_delay

shares = st.floats(0, 1, exclude_max=True)


def test_the_delay_doubles_with_each_attempt_up_to_its_cap() -> None:
    delays = [retry_delay(n, 0.999999, base=1.0, cap=10.0) for n in range(1, 7)]
    assert [round(delay) for delay in delays] == [1, 2, 4, 8, 10, 10]


@given(st.integers(1, 10**9), shares, st.floats(0.001, 100), st.floats(0.001, 1000))
def test_the_delay_is_from_half_of_its_bound_to_all_of_it(
    attempt: int, random: float, base: float, cap: float
) -> None:
    bound = min(cap, base * 2.0 ** min(attempt - 1, 60))
    assert bound / 2 <= retry_delay(attempt, random, base=base, cap=cap) <= bound
