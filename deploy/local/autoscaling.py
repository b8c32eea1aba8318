"""How many workers there should be, by the rule of the Kubernetes ScaledObject.

It is what Kubernetes' HorizontalPodAutoscaler makes of the triggers that KEDA hands to it: each
asks for a number of workers, the largest counts, and ``behavior`` says how fast it is followed.
``pollingInterval`` and ``cooldownPeriod`` matter only to an object that scales to zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import msgspec

DEPTH_QUERY: Final = "max(sellfern_due_events)"
OLDEST_QUERY: Final = "max(sellfern_due_seconds) unless on () (min(sellfern_partition_up) == 0)"
"""The questions to Prometheus whose answers `Reading` gives."""

# Without it, a number that is nearly right would change at every reading.
TOLERANCE: Final = 0.1
"""Kubernetes' own: so near to its threshold a metric asks for no change."""

# The last is whether KEDA may take no answer for 0, as it does where nobody says that it may not.
_EXPECTED_TRIGGERS: Final = {
    "depth": ("AverageValue", DEPTH_QUERY, "false"),
    "oldest": ("Value", OLDEST_QUERY, "false"),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the ingress's gauges tell.

    Attributes:
        due: events that another worker could take; ``None`` where nobody knows.
        seconds: for how long one of them could have been; ``None`` where nobody knows of all.
        unfinished: events wherever they are.
    """

    due: float | None
    seconds: float | None
    unfinished: float = 0.0


class Policy(msgspec.Struct, frozen=True):
    """A bound on how fast the number may change.

    Attributes:
        kind: what `value` counts.
        value: by how much at most.
        seconds: within this time.
    """

    kind: Literal["Percent", "Pods"] = msgspec.field(name="type")
    value: int
    seconds: float = msgspec.field(name="periodSeconds")


class Behaviour(msgspec.Struct, frozen=True):
    """How fast the number follows in one direction.

    Attributes:
        window: seconds; the most cautious wish of this time counts.
        policies: the one that allows the most counts.
    """

    window: float = msgspec.field(name="stabilizationWindowSeconds")
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule.

    Attributes:
        fewest: workers.
        most: workers.
        depth: events for each worker that another one could take.
        oldest: seconds that one of these may wait.
        up: how fast workers are added.
        down: how fast they are taken away.
    """

    fewest: int
    most: int
    depth: float
    oldest: float
    up: Behaviour
    down: Behaviour

    def wanted(self, reading: Reading, current: int) -> int:
        """How many workers a reading asks for, were it followed at once."""
        # AverageValue: what each worker may have before it, so that the ratio is to all of them
        # together.
        wishes = [
            _asked(value / enough, current)
            for value, enough in (
                (reading.due, self.depth * current),
                (reading.seconds, self.oldest),
            )
            if value is not None
        ]
        # What nobody knows may ask for as many as there are: others may be added, none go.
        return max([*wishes, current] if len(wishes) < len(_EXPECTED_TRIGGERS) else wishes)

    def faster(self, factor: float) -> "Rule":
        """The same rule where time passes faster."""
        return replace(
            self,
            oldest=self.oldest / factor,
            up=_faster(self.up, factor),
            down=_faster(self.down, factor),
        )

    def for_workers(self, share: float) -> "Rule":
        """The same rule for workers that can do this share of what its own can do."""
        return replace(self, depth=self.depth * share)

    def at_most(self, workers: int) -> "Rule":
        """The same rule where no more workers may run than these."""
        return replace(self, most=max(self.fewest, min(self.most, workers)))


def read_rule(scaled_object: Mapping[str, Any]) -> Rule:
    """The rule of a ScaledObject.

    Raises:
        ValueError: it has another trigger or kind of policy than those that are known here, or a
            policy lacks something.
        KeyError: something else is missing.
    """
    spec = scaled_object["spec"]
    triggers = {each["name"]: each for each in spec["triggers"]}
    found = {
        name: (
            each["metricType"],
            " ".join(each["metadata"]["query"].split()),
            each["metadata"].get("ignoreNullValues"),
        )
        for name, each in triggers.items()
    }
    # A rule that is changed there and not here would make the demo show something else than what
    # runs.
    if found != _EXPECTED_TRIGGERS:
        raise ValueError(f"expected the triggers {_EXPECTED_TRIGGERS}, got {found}")
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    try:
        behaviours = msgspec.convert(behavior, dict[str, Behaviour])
    except msgspec.ValidationError as exc:
        raise ValueError(f"expected a policy of the type Percent or Pods: {exc}") from exc
    return Rule(
        fewest=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        depth=float(triggers["depth"]["metadata"]["threshold"]),
        oldest=float(triggers["oldest"]["metadata"]["threshold"]),
        up=behaviours["scaleUp"],
        down=behaviours["scaleDown"],
    )


class Autoscaler:
    """Follows a rule from reading to reading.

    Args:
        rule: which.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._wishes: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def decide(self, reading: Reading, current: int, now: float) -> int:
        """How many workers there should be from now on.

        Args:
            reading: the latest.
            current: how many there are.
            now: seconds; only differences count, and it doesn't go back.
        """
        rule = self.rule
        wish = rule.wanted(reading, current)
        self._forget(now)
        self._wishes.append((now, wish))
        steady = self._steady(current, now)
        limited = self._limited(steady, current, now)
        decided = min(rule.most, max(rule.fewest, limited))
        if decided != current:
            self._changes.append((now, decided - current))
        return decided

    def _forget(self, now: float) -> None:
        """Drop what no window and no policy asks for any more."""
        both = (self.rule.up, self.rule.down)
        # What is kept is bounded, however long it runs.
        longest = max(
            *(each.window for each in both),
            *(policy.seconds for each in both for policy in each.policies),
        )
        self._wishes = [each for each in self._wishes if each[0] > now - longest]
        self._changes = [each for each in self._changes if each[0] > now - longest]

    def _steady(self, current: int, now: float) -> int:
        """Up to the least that was wished for of late, down to the most."""
        latest = self._wishes[-1][1]
        up, down = self.rule.up, self.rule.down
        least = min([latest, *(wish for at, wish in self._wishes if at > now - up.window)])
        most = max([latest, *(wish for at, wish in self._wishes if at > now - down.window)])
        return min(max(current, least), most)

    def _limited(self, wanted: int, current: int, now: float) -> int:
        """As far as the policies let it go; of several, the one that allows the most counts."""
        up, down = self.rule.up.policies, self.rule.down.policies
        if wanted > current:
            bounds = [math.ceil(self._bound(each, 1, current, now)) for each in up]
            return min(wanted, max(current, *bounds))
        bounds = [math.floor(self._bound(each, -1, current, now)) for each in down]
        return max(wanted, min(current, *bounds))

    def _bound(self, policy: Policy, sign: int, current: int, now: float) -> float:
        # What was changed within the policy's time counts, or it would allow as much every time.
        start = current - sum(by for at, by in self._changes if at > now - policy.seconds)
        by = sign * policy.value
        return start + by if policy.kind == "Pods" else start * (1 + by / 100)


def _asked(ratio: float, current: int) -> int:
    """The workers that a metric asks for, by its ratio to what the current ones may have."""
    # Rounded first, since a ratio of floats times the current number may be a hair above a whole
    # one.
    return current if abs(ratio - 1) <= TOLERANCE else math.ceil(round(ratio * current, 9))


def _faster(behaviour: Behaviour, factor: float) -> Behaviour:
    policies = tuple(
        Policy(each.kind, each.value, each.seconds / factor) for each in behaviour.policies
    )
    return Behaviour(behaviour.window / factor, policies)
