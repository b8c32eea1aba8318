"""The names of everything that the two programs keep in Redis.

An organization's id has no colon, so a name built from it can't reach into another organization's
names.
"""

import re
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Final

ORGANIZATION_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an organization's id may look like; the endpoints file refuses others."""

QUEUE = "sellfern:queue"
CLAIMS = "sellfern:claims"
FLOWS = "sellfern:flows"
RUNNING = "sellfern:running"
ORGANIZATIONS = "sellfern:organizations"
ACCEPTED = "sellfern:accepted"
WAITING = "sellfern:waiting"
COUNTERS = "sellfern:counters"
BURIED = "sellfern:dead"
WORKERS = "sellfern:workers"
WORKERS_SEEN = "sellfern:workers:seen"
WORKERS_NOW = "sellfern:workers:now"
"""What takes long in each worker: ``worker/at_work.py`` tells the form."""
WORKERS_LOST = "sellfern:workers:lost"
"""The last ones that went without a word: ``renew.lua`` tells the form."""
SLOTS = "sellfern:slots"
DUTY = "sellfern:duty"
WAKE = "sellfern:wake"
BREAKERS = "sellfern:breakers"
DUE = "sellfern:due"
"""What ends by itself, as ``hold:{organization}``, by its end (epoch milliseconds)."""
THROTTLED = "sellfern:throttled"
"""Jobs whose handlers have asked that their organization waits, with how often."""
FAILURES = "sellfern:failures"
"""What is known of the last attempt of jobs that come back: ``settle.lua`` tells the form."""
REDELIVERED = "sellfern:redelivered"
"""Jobs that were delivered again while they waited: ``attempts.lua`` tells the form."""
UNHANDLED = "sellfern:unhandled"
"""Jobs that no worker could handle yet, with the moment of the first look (epoch milliseconds)."""
SUSPECTS = "sellfern:suspects"
BYTES = "sellfern:bytes"
"""What each organization holds in Redis, by "organization:kind", in bytes as its budget counts."""
RECOUNT = "sellfern:recount"
"""How far the count of that has come which is made anew."""
TURNS = "sellfern:turns"
"""What each job that is in a turn is in; MessagePack, as ``prelude/turns.lua`` has it."""
IN_TURN = "sellfern:in-turn"
"""How many events of each organization wait for their turn."""
RATES = "sellfern:rates"
"""How often each organization's handlers may start; ``prelude/rates.lua`` tells the fields."""
LATEST = "sellfern:latest"
"""The one that waits, of those of a handler and key of which only the newest runs."""
LOOKED_UNTIL = "sellfern:looked-until"
"""Where the look for accepted jobs without a place has stopped, while it isn't at its end."""

MOVED = "sellfern:moved"
"""Of each organization that has gone from here to another partition, the number of that."""
MOVING = "sellfern:moving"
"""What is known of each organization's move on its way from, or to, here: ``halt.lua`` tells."""

LAYOUT = "sellfern:layout"
"""How many partitions there are, as the first program to start has it, and which of the primaries
this is: under the first partition's tag in each."""
ACTIONS = "sellfern:actions"
"""What operators have done, the last first: ``worker/operate/actions.py`` tells the form."""

TOLD_MARKS = "sellfern:told-marks"
"""There while every live worker reads marks that tell how an event was handled."""
KNOWN = "sellfern:known"
"""The names of workers and of their handlers, by when they were there last (epoch seconds): marks
have codes of them."""
RUNS = "sellfern:runs"
"""Replays and discards of many dead letters: ``begin.lua`` tells the fields."""

MARKER = "sellfern:marker"
"""Of the first partition of each primary: ``marker.py`` tells the fields."""

# arq's own, which stock workers and producers look for.
JOB = "arq:job:"
ARQ_RETRY = "arq:retry:"
PARKED = "sellfern:parked:"
HELD_BACK = "sellfern:held-back"
"""The organizations that may have parked jobs: a set."""
TURN = "sellfern:turn:"
UNDECIDED = "sellfern:undecided:"
SUPERSEDED = "sellfern:superseded:"
UNREAD = "sellfern:unread:"
EVENT = "sellfern:event:"
REVIVALS = "sellfern:revivals:"
STATE = "sellfern:state:"
DEAD = "sellfern:dead:"
DEAD_LETTER = "sellfern:dead-letter:"
DEAD_GROUP = "sellfern:dead-group:"
"""The dead letters of an organization that died of one cause, by the time of their death."""
DEAD_GROUPS = "sellfern:dead-groups:"
"""How many each group of one reason has, as ``organization:group``."""
DEAD_LABELS = "sellfern:dead-labels:"
"""What the letters of each of an organization's groups have in common: ``records.lua`` has it."""
DEAD_KIND = "sellfern:dead-kind:"
"""The dead letters of one reason and one type, of all organizations, by the time of their death."""
DEAD_KINDS = "sellfern:dead-kinds"
"""How many there are of each reason and type, as ``reason:type``."""
DEAD_LISTED = "sellfern:dead-listed"
"""Since when all of them are in a group and of a kind (epoch milliseconds), if they are."""

PAUSE = "pause:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that says why it is paused."""

BREAKER = "breaker:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that holds its breaker."""

HOLD = "hold:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that says until when its events
wait since a handler asked for it (epoch milliseconds), and behind a colon why."""

TROUBLE = "trouble:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that says how its handlers fail:
``prelude/organizations.lua`` tells the form."""

RATE = "rate:"
"""In front of an organization's id: the member of ``DUE`` that says when more of it may start."""

DEFERRED_FROM = 1_000_000_000_000
"""Scores of the queue from here on are epoch milliseconds; those below are virtual times."""

_LUA_NAME = re.compile(r"\bkey\.(\w+)(?:\(([\w.]+)\))?")

# What a script means by these, with what stands between the parentheses.
_UNTAGGED_IN_LUA = {
    "owner": "string.match({0}, '^([%w_-]+):')",  # the organization in a job's id
    "in_mark": "{0}",  # how marks name a job
    "from_mark": "{0}",  # whom a mark names so
    "neighbours": "#{0} > 0",  # whether there are some for who was given alone
}
_TAGGED_IN_LUA = {
    "owner": "(string.match({0}, '^{{[^}}]*}}([%w_-]+):') or string.match({0}, '^([%w_-]+):'))",
    "in_mark": "(string.sub({0}, 1, {1}) == '{2}' and string.sub({0}, {1} + 1) or '{{}}' .. {0})",
    "from_mark": "(string.sub({0}, 1, 2) == '{{}}' and string.sub({0}, 3) or '{2}' .. {0})",
    "neighbours": "true",  # those of other partitions, too, from when the worker says so
}
_FOREIGN = "{}"
"""In a partition's marks, in front of a job that doesn't bear its tag, as a stock producer's."""

_LUA_CONSTANTS = {
    "pause": f"'{PAUSE}'",
    "breaker": f"'{BREAKER}'",
    "hold": f"'{HOLD}'",
    "trouble": f"'{TROUBLE}'",
    "rate": f"'{RATE}'",
    "deferred_from": str(DEFERRED_FROM),
}


def _named(name: str, of: str) -> str:
    """A field of `Names`.

    Args:
        name: what it is without a tag.
        of: what under it is of one organization, ``org``, in one table for whoever moves one, and
            for whoever checks rights. Between brackets stand the fields or members that are, in
            front of them what follows in a key's name. ``job`` is the id of one of its jobs, ``*``
            any text, ``turn`` the name of one of its turns. Empty: all of it is the partition's.
    """
    metadata = {"untagged": name, "of": of}
    text: str = field(init=False, repr=False, compare=False, metadata=metadata)
    return text


@dataclass(frozen=True)
class Names:
    """The names of one partition or, without a tag, of a Redis that holds a single queue.

    All of a partition's hash to its tag's slot: ``sellfern:{021}:queue``. So do the ids of its
    jobs, ``{021}org_1:…``, and with them arq's own names of these.

    Attributes:
        tag: between the braces; empty for a single queue.
        job_prefix: in front of the id of each job.
        payloads: what the payload records of jobs that bear the tag begin with.
    """

    tag: str = ""
    job_prefix: str = field(init=False, repr=False, compare=False)
    payloads: str = field(init=False, repr=False, compare=False)
    queue: str = _named(QUEUE, "[job]")
    claims: str = _named(CLAIMS, "[job]")
    flows: str = _named(FLOWS, "[org] [retry:org] [order:org] [order:full:org]")
    running: str = _named(RUNNING, "[org]")
    organizations: str = _named(
        ORGANIZATIONS, "[org] [pause:org] [breaker:org] [hold:org] [trouble:org]"
    )
    accepted: str = _named(ACCEPTED, "[job]")
    waiting: str = _named(WAITING, "[org]")
    counters: str = _named(COUNTERS, "")
    buried: str = _named(BURIED, "[org]")
    workers: str = _named(WORKERS, "")
    workers_seen: str = _named(WORKERS_SEEN, "")
    workers_now: str = _named(WORKERS_NOW, "")
    workers_lost: str = _named(WORKERS_LOST, "")
    slots: str = _named(SLOTS, "")
    duty: str = _named(DUTY, "")
    wake: str = _named(WAKE, "")
    breakers: str = _named(BREAKERS, "[org]")
    due: str = _named(DUE, "[hold:org] [rate:org]")
    throttled: str = _named(THROTTLED, "[job]")
    failures: str = _named(FAILURES, "[job]")
    redelivered: str = _named(REDELIVERED, "[job]")
    unhandled: str = _named(UNHANDLED, "[job]")
    suspects: str = _named(SUSPECTS, "[job]")
    bytes: str = _named(BYTES, "[org:*]")
    recount: str = _named(RECOUNT, "")
    turns: str = _named(TURNS, "[job]")
    in_turn: str = _named(IN_TURN, "[org]")
    latest: str = _named(LATEST, "[turn*]")
    looked_until: str = _named(LOOKED_UNTIL, "")
    moved: str = _named(MOVED, "[org]")
    moving: str = _named(MOVING, "[org] [lock:org]")
    layout: str = _named(LAYOUT, "")
    marker: str = _named(MARKER, "")
    actions: str = _named(ACTIONS, "")
    told_marks: str = _named(TOLD_MARKS, "")
    known: str = _named(KNOWN, "")
    runs: str = _named(RUNS, "")
    job: str = _named(JOB, "job")
    arq_retry: str = _named(ARQ_RETRY, "job")
    parked_prefix: str = _named(PARKED, "org[job]")
    held_back: str = _named(HELD_BACK, "[org]")
    turn: str = _named(TURN, "org:*[job]")
    undecided: str = _named(UNDECIDED, "org[job]")
    superseded: str = _named(SUPERSEDED, "job")
    unread: str = _named(UNREAD, "")
    event_prefix: str = _named(EVENT, "org:*")
    revivals_prefix: str = _named(REVIVALS, "org:*")
    state_prefix: str = _named(STATE, "org:*")
    dead_prefix: str = _named(DEAD, "org[job]")
    dead_letter_prefix: str = _named(DEAD_LETTER, "job")
    dead_group_prefix: str = _named(DEAD_GROUP, "org:*[job]")
    dead_groups_prefix: str = _named(DEAD_GROUPS, "*[org:*]")
    dead_labels_prefix: str = _named(DEAD_LABELS, "org")
    dead_kind_prefix: str = _named(DEAD_KIND, "*[job]")
    dead_kinds: str = _named(DEAD_KINDS, "")
    dead_listed: str = _named(DEAD_LISTED, "")
    rates: str = _named(RATES, "[org] [next:org] [ramp:org]")

    def __post_init__(self) -> None:
        """Make them all once, so that nobody does for each event."""
        prefix = f"{{{self.tag}}}" if self.tag else ""
        named = {each.name: each.metadata["untagged"] for each in fields(self) if each.metadata}
        if prefix:
            named = {
                attribute: name.replace("sellfern:", f"sellfern:{prefix}:")
                for attribute, name in named.items()
            }
        named |= {"job_prefix": prefix, "payloads": JOB + prefix}
        vars(self).update(named)  # as none is assigned to what is frozen

    def payload(self, job: str) -> str:
        """arq's payload record of a job."""
        return self.job + job

    def event(self, organization: str, event_id: str) -> str:
        """The dedupe mark of an event."""
        return f"{self.event_prefix}{organization}:{event_id}"

    def revivals(self, organization: str, event_id: str) -> str:
        """How often redeliveries have revived an event, and when the last one did."""
        return f"{self.revivals_prefix}{organization}:{event_id}"

    def state(self, organization: str, key: str) -> str:
        """A value that the organization's handlers wrote."""
        return f"{self.state_prefix}{organization}:{key}"

    def dead(self, organization: str) -> str:
        """The dead letters of an organization, by the time of their death."""
        return self.dead_prefix + organization

    def dead_letter(self, job: str) -> str:
        """The record of one dead letter."""
        return self.dead_letter_prefix + job

    def dead_group(self, organization: str, group: str) -> str:
        """The dead letters of a group, by the time of their death."""
        return f"{self.dead_group_prefix}{organization}:{group}"

    def dead_groups(self, reason: str) -> str:
        """How many each group of a reason has, as ``organization:group``."""
        return self.dead_groups_prefix + reason

    def dead_labels(self, organization: str) -> str:
        """What the letters of each of an organization's groups have in common."""
        return self.dead_labels_prefix + organization

    def dead_kind(self, kind: str) -> str:
        """The dead letters of a reason and a type, ``reason:type``, by the time of their death."""
        return self.dead_kind_prefix + kind

    def parked(self, organization: str) -> str:
        """The jobs of an organization that wait for a slot of its own."""
        return self.parked_prefix + organization

    def in_mark(self, job: str) -> str:
        """How marks name a job: without the tag, so that a mark is the same in every partition."""
        if not self.tag:
            return job
        bare = job.removeprefix(self.job_prefix)
        return bare if bare != job else _FOREIGN + job

    def from_mark(self, text: str) -> str:
        """The job that a mark names so."""
        if not self.tag:
            return text
        foreign = text.removeprefix(_FOREIGN)
        return foreign if foreign != text else self.job_prefix + text

    @cached_property
    def in_lua(self) -> dict[str, str]:
        """What scripts have in place of each ``key.name``; a form where that is called."""
        named = {
            each.name.removesuffix("_prefix"): f"'{getattr(self, each.name)}'"
            for each in fields(self)
            if each.metadata
        }
        forms = _TAGGED_IN_LUA if self.tag else _UNTAGGED_IN_LUA
        return {**named, **_LUA_CONSTANTS, **forms, "payloads": f"'{self.payloads}'"}


UNTAGGED: Final = Names()
"""Those of a Redis that holds a single queue, as by far the most do; so are these."""

payload, event = UNTAGGED.payload, UNTAGGED.event
revivals, state = UNTAGGED.revivals, UNTAGGED.state
dead, dead_letter, parked = UNTAGGED.dead, UNTAGGED.dead_letter, UNTAGGED.parked


def in_place(script: str, names: Names = UNTAGGED) -> str:
    """A script's text with each ``key.name`` replaced by what it names.

    A table of them, or a local variable each, would be made anew at each call.

    Raises:
        KeyError: there is no such name.
    """
    prefix = names.job_prefix

    def named(found: re.Match[str]) -> str:
        text = names.in_lua[found[1]]
        return text.format(found[2], len(prefix), prefix) if found[2] else text

    return _LUA_NAME.sub(named, script)
