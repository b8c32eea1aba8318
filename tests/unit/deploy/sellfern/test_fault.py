"""Facts about faults that are ordered."""

import pytest

from deploy.sellfern.fault import Fault, Faults, parse_fault, read_faults


def always() -> float:
    """A draw that is within every share."""
    return 0.0


def taken(faults: Faults, times: int, method: str = "POST") -> list[str]:
    """The kinds that hit so many requests in turn."""
    found = (faults.take(method, f"{method} /webhooks") for _ in range(times))
    return [fault.kind if fault else "" for fault in found]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cut", Fault("cut")),
        ("cut:after", Fault("cut", when="after")),
        (
            "error:after,status=500,times=0,share=0.25,skip=2,operation=POST /webhooks",
            Fault(
                "error",
                when="after",
                status=500,
                times=0,
                share=0.25,
                skip=2,
                operation="POST /webhooks",
            ),
        ),
        ("hang,seconds=2.5,operation=GET", Fault("hang", seconds=2.5, operation="GET")),
        ("rate_limit,retry_after=3", Fault("rate_limit", retry_after=3)),
    ],
)
def test_a_fault_is_read_from_an_argument(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "crash",
        "cut:during",
        "cut,times",
        "cut,times=-1",
        "cut,when=after,color=red",
        "error,status=404",
        "error,share=0",
        "hang,seconds=0",
        "cut,operation=GET /orders",
        "rate_limit:after",
    ],
)
def test_another_argument_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected KIND\[:WHEN\]"):
        parse_fault(text)


def test_one_fault_or_several_are_read_from_json() -> None:
    assert read_faults(b'{"kind":"cut"}') == [Fault("cut")]
    assert read_faults(b'[{"kind":"cut"},{"kind":"hang"}]') == [Fault("cut"), Fault("hang")]


@pytest.mark.parametrize(
    "body", [b"", b"7", b'{"kind":"crash"}', b'[{"kind":"cut","times":"1"}]', b"\xff", b"[" * 10**5]
)
def test_other_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_faults(body)


def test_a_fault_hits_as_often_as_it_was_ordered() -> None:
    faults = Faults(always, [Fault("cut", times=2)])
    assert taken(faults, 3) == ["cut", "cut", ""]
    assert faults.left == []


def test_a_fault_ordered_for_ever_stays_until_it_is_cleared() -> None:
    faults = Faults(always, [Fault("cut", times=0)])
    assert taken(faults, 3) == ["cut"] * 3
    faults.clear()
    assert taken(faults, 1) == [""]


def test_a_fault_spares_the_first_ones_if_told() -> None:
    assert taken(Faults(always, [Fault("cut", skip=2)]), 4) == ["", "", "cut", ""]


def test_faults_hit_in_the_order_in_which_they_were_ordered() -> None:
    faults = Faults(always, [Fault("cut")])
    faults.add(Fault("hang"), Fault("error"))
    assert taken(faults, 4) == ["cut", "hang", "error", ""]


@pytest.mark.parametrize("operation", ["POST", "POST /webhooks"])
def test_a_fault_hits_only_what_it_is_meant_for(operation: str) -> None:
    faults = Faults(always, [Fault("cut", operation=operation)])
    assert taken(faults, 1, "GET") == [""]
    assert taken(faults, 1, "POST") == ["cut"]


def test_a_fault_hits_a_share_of_the_requests() -> None:
    draws = iter([0.5, 0.1, 0.3, 0.2])
    faults = Faults(lambda: next(draws), [Fault("cut", times=0, share=0.3)])
    assert taken(faults, 4) == ["", "cut", "", "cut"]
