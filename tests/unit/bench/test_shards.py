"""Facts about how far primaries are apart."""

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from tests.bench.shards import _apart, _least, _Primary


def primary(primaries: int, *rounds: float) -> _Primary:
    return _Primary(primaries, EmbeddedRedis(), (), list(rounds))


def test_of_each_primary_the_best_round_counts() -> None:
    assert _least([primary(1, 9.0, 5.0), primary(2, 6.0, 7.0), primary(2, 8.0)]) == {
        1: [5.0],
        2: [6.0, 8.0],
    }


def test_the_dearest_of_all_is_set_against_the_cheapest() -> None:
    assert _apart({1: [5.0], 2: [6.0, 4.0]}).middle == pytest.approx(1.5)
