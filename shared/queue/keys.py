"""The names of everything that the two programs keep in Redis.

An organization's id has no colon, so a name built from it can't reach into another organization's
names.
"""

import re

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

PAUSE = "pause:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that says why it is paused."""

BREAKER = "breaker:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that holds its breaker."""

HOLD = "hold:"
"""In front of an organization's id: the field of ``ORGANIZATIONS`` that says until when its events
wait since a handler asked for it (epoch milliseconds), and behind a colon why."""

RATE = "rate:"
"""In front of an organization's id: the member of ``DUE`` that says when more of it may start."""

DEFERRED_FROM = 1_000_000_000_000
"""Scores of the queue from here on are epoch milliseconds; those below are virtual times."""

# The scripts have them from here, so that a name is written once in two languages.
_LUA_NAMES = {
    "queue": QUEUE,
    "claims": CLAIMS,
    "flows": FLOWS,
    "running": RUNNING,
    "organizations": ORGANIZATIONS,
    "accepted": ACCEPTED,
    "waiting": WAITING,
    "counters": COUNTERS,
    "buried": BURIED,
    "workers": WORKERS,
    "workers_seen": WORKERS_SEEN,
    "slots": SLOTS,
    "duty": DUTY,
    "wake": WAKE,
    "breakers": BREAKERS,
    "due": DUE,
    "throttled": THROTTLED,
    "failures": FAILURES,
    "unhandled": UNHANDLED,
    "suspects": SUSPECTS,
    "bytes": BYTES,
    "recount": RECOUNT,
    "turns": TURNS,
    "in_turn": IN_TURN,
    "latest": LATEST,
    "looked_until": LOOKED_UNTIL,
    "job": JOB,
    "arq_retry": ARQ_RETRY,
    "parked": PARKED,
    "held_back": HELD_BACK,
    "turn": TURN,
    "undecided": UNDECIDED,
    "superseded": SUPERSEDED,
    "unread": UNREAD,
    "event": EVENT,
    "revivals": REVIVALS,
    "state": STATE,
    "dead": DEAD,
    "dead_letter": DEAD_LETTER,
    "pause": PAUSE,
    "breaker": BREAKER,
    "hold": HOLD,
    "rate": RATE,
    "rates": RATES,
}

_LUA_NAME = re.compile(r"\bkey\.(\w+)")
_LUA_VALUES = {
    **{name: f"'{value}'" for name, value in _LUA_NAMES.items()},
    "deferred_from": str(DEFERRED_FROM),
}


def payload(job: str) -> str:
    """arq's payload record of a job."""
    return JOB + job


def event(organization: str, event_id: str) -> str:
    """The dedupe mark of an event."""
    return f"{EVENT}{organization}:{event_id}"


def revivals(organization: str, event_id: str) -> str:
    """How often redeliveries have revived an event, and when the last one did."""
    return f"{REVIVALS}{organization}:{event_id}"


def state(organization: str, key: str) -> str:
    """A value that the organization's handlers wrote."""
    return f"{STATE}{organization}:{key}"


def dead(organization: str) -> str:
    """The dead letters of an organization, by the time of their death."""
    return DEAD + organization


def dead_letter(job: str) -> str:
    """The record of one dead letter."""
    return DEAD_LETTER + job


def parked(organization: str) -> str:
    """The jobs of an organization that wait for a slot of its own."""
    return PARKED + organization


def in_place(script: str) -> str:
    """A script's text with each ``key.name`` replaced by what it names.

    A table of them, or a local variable each, would be made anew at each call.

    Raises:
        KeyError: there is no such name.
    """
    return _LUA_NAME.sub(lambda found: _LUA_VALUES[found[1]], script)
