"""What it costs others that some organizations' primary, replica or slot fails."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.verdict import BROKEN, HELD, NOT_EXERCISED, Finding

_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, or none.

    Attributes:
        organization: whose event was sent.
        began: when it was, seconds.
        took: seconds.
        status: of it; ``None`` where the connection broke, or nothing came.
        code: of a refusal.
        port: of the ingress.
    """

    organization: str
    began: float
    took: float
    status: int | None
    code: str = ""
    port: int = 0

    @property
    def ended(self) -> float:
        """When it came, seconds."""
        return self.began + self.took

    @property
    def is_refusal(self) -> bool:
        """Whether it has to be sent again."""
        return self.status in {None, _UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class Harm:
    """One fault that harms some organizations only.

    Attributes:
        fault: what it is called.
        began: seconds.
        ended: seconds.
        harmed: whose events it may delay.
    """

    fault: str
    began: float
    ended: float
    harmed: frozenset[str]


@dataclass(slots=True)
class Others:
    """Takes note of answers, and of faults.

    Attributes:
        answers: in the order in which they came.
        harms: one after the other.
    """

    answers: list[Answer] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)
    _organizations: dict[str, str] = field(default_factory=dict)
    _faults: list[tuple[float, float]] = field(default_factory=list)
    _began: float = 0.0
    _harmed: frozenset[str] | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Take a line of the ledger."""
        match line["what"]:
            case "event":
                self._organizations[line["id"]] = line["organization"]
            case "answer":
                took = line.get("took", 0.0)
                organization = self._organizations[line["id"]]
                told = line["status"], line.get("code", ""), line.get("port", 0)
                self.answers.append(Answer(organization, line["at"] - took, took, *told))
            case "fault began":
                self._began, self._harmed = line["at"], None
            case "harms":
                self._harmed = frozenset(line["organizations"])
            case "fault ended":
                self._faults.append((self._began, line["at"]))
                if self._harmed is not None:
                    harm = Harm(line["fault"], self._began, line["at"], self._harmed)
                    self.harms.append(harm)

    def meanwhile(self, harm: Harm) -> list[Answer]:
        """Those to others during a fault.

        Whom an ingress refused when it began, and hasn't accepted since, an earlier one harms yet:
        a primary that is whole again is tried once at a time.
        """
        found, refused = [], set[tuple[str, int]]()
        for each in self.answers:
            whose = each.organization, each.port
            if not each.is_refusal:
                refused.discard(whose)
            elif each.ended < harm.began:
                refused.add(whose)
            is_meanwhile = harm.began <= each.began < harm.ended
            if is_meanwhile and whose not in refused and each.organization not in harm.harmed:
                found.append(each)
        return found

    def in_between(self) -> list[Answer]:
        """Those of the times between two faults."""
        ends = [ended for _, ended in self._faults]
        pauses = list(zip(ends, [began for began, _ in self._faults[1:]], strict=False))
        return [
            each
            for each in self.answers
            if any(since <= each.began < until for since, until in pauses)
        ]


def _p99(answers: Sequence[Answer]) -> float:
    """Seconds in which all but one of a hundred have come; 0 of none."""
    found = sorted(each.took for each in answers)
    return found[len(found) * 99 // 100] if found else 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a fault may cost whom it doesn't concern.

    Attributes:
        within: seconds beyond twice what answers take.
        refused: the share of answers that may be refusals; where a machine stands still, nodes take
            others for failed that nothing has happened to.
    """

    within: float = 0.010
    refused: float = 0.0


def findings(others: Others, bounds: Bounds) -> Iterable[Finding]:
    """Whom a fault doesn't concern notices nothing of it."""
    by_fault = {harm: others.meanwhile(harm) for harm in others.harms}
    answers = [each for found in by_fault.values() for each in found]
    within = bounds.within
    is_known = bool(answers and others.in_between())
    before, meanwhile = _p99(others.in_between()), _p99(answers)
    by_kind: dict[str, list[Answer]] = defaultdict(list)
    for harm, found in by_fault.items():
        by_kind[harm.fault] += found
    shown = ", ".join(f"{kind} {_p99(found) * 1000:.0f}" for kind, found in by_kind.items())
    yield Finding(
        f"others' p99 is twice what it was and {within * 1000:.0f} ms, at most",
        NOT_EXERCISED if not is_known else HELD if meanwhile <= 2 * before + within else BROKEN,
        f"{meanwhile * 1000:.0f} ms, {before * 1000:.0f} ms between faults ({shown})",
    )
    refused = {kind: [each for each in found if each.is_refusal] for kind, found in by_kind.items()}
    shown = "; ".join(f"{kind} {_refusals(found)}" for kind, found in refused.items() if found)
    is_refused = sum(map(len, refused.values())) > bounds.refused * len(answers)
    yield Finding(
        "others are refused nothing",
        NOT_EXERCISED if not is_known else BROKEN if is_refused else HELD,
        f"{shown or 'none'} of {len(answers)} answers",
    )


def _refusals(found: Sequence[Answer]) -> str:
    """How many, and how many by each code to whom."""
    by_code: dict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        by_code[each.code][each.organization] += 1
    shown = (
        f"{code} {' '.join(f'{name} {number}' for name, number in whose.items())}"
        for code, whose in by_code.items()
    )
    return f"{len(found)} ({', '.join(shown)})"
