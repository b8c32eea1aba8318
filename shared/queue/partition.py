"""Partitions: each is a complete queue, with a client and names of its own."""

from dataclasses import dataclass
from typing import Any, Final, Self
from zlib import crc32

from redis.asyncio import Redis

from shared.queue import scripts
from shared.queue.keys import UNTAGGED, Names
from shared.redis.wire import Argument, Script

TAGS: Final = tuple(
    """
021 357 461 717 201 177 641 187 131 247 571 607 311 067 751 097
552 294 112 264 772 659 332 044 442 384 002 374 662 749 222 154
982 102 972 859 209 792 414 824 892 012 862 949 319 682 504 934
841 471 347 481 527 917 167 211 951 561 257 591 437 807 077 301
495 353 465 713 058 173 645 533 585 243 575 603 148 063 755 423
556 620 116 260 776 400 786 040 446 730 006 370 666 510 696 150
986 106 976 546 050 326 410 820 896 016 866 456 140 236 500 930
845 628 343 035 838 913 163 215 955 738 253 125 928 803 073 305
355 023 548 463 175 203 185 643 245 133 458 573 065 313 095 753
296 550 266 110 406 770 046 330 386 440 376 000 516 660 156 220
100 980 540 970 790 056 826 416 010 890 450 860 680 146 936 506
968 843 998 118 915 525 213 338 878 953 888 008 805 435 303 228
351 497 711 467 171 207 531 647 241 587 601 577 061 317 421 757
622 554 262 349 402 774 042 784 732 444 372 259 512 664 152 694
104 984 719 974 324 052 822 909 014 894 609 864 234 142 932 819
477 847 037 341 911 191 217 161 567 957 127 251 801 081 307 071
""".split()  # noqa: SIM905  # 256 lines otherwise
)
"""By partition. They are chosen, once and for all: of the first 2, 4, 8, … 256 of them, one hashes
to each of as many equal ranges of a cluster's slots. By plain numbers as tags, the busiest of 16
nodes would have four times its share."""

BEFORE: Final = 999
"""The number of a single queue that organizations leave for partitions; none of them has it."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue with virtual time, leases, marks and dead letters of its own.

    An organization lives in one, so what is said of one organization holds as in a single queue.

    Attributes:
        number: from 0.
        names: of all that it keeps in Redis.
        redis: reaches whoever has it now.
    """

    number: int
    names: Names
    redis: Redis

    @classmethod
    def only(cls, redis: Redis) -> Self:
        """The single queue of a Redis that isn't divided."""
        return cls(0, UNTAGGED, redis)

    @classmethod
    def at(cls, number: int, redis: Redis) -> Self:
        """One of several, 0 to 255."""
        return cls(number, Names(TAGS[number]), redis)

    def script(self, script: Script) -> Script:
        """The same script, for these names."""
        return scripts.of(script, self.names)

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """Run a script here, once; raises what the client does."""
        return await self.script(script)(self.redis, *arguments)


def home(organization: str, partitions: int) -> int:
    """The number of the partition in which an organization lives, unless it has been moved.

    Args:
        organization: its id.
        partitions: how many there are, 1 to 256.
    """
    return crc32(organization.encode()) % partitions
