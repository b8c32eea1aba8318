"""Which way an organization is to go next between partitions, as far as one is known."""

from dataclasses import dataclass

from shared.errors import SellfernError
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from worker.operate.belongings import Belongings


class MoveError(SellfernError):
    """A move can't begin, or can't go on."""


class OnItsWayError(MoveError):
    """It goes elsewhere."""

    def __init__(self, organization: str, number: int) -> None:
        super().__init__(
            f"{organization} is on its way to partition {number}: that has to end first "
            f"(partitions move {organization} {number})"
        )


@dataclass(frozen=True, slots=True)
class Way:
    """What is to be done next for an organization to get to where it is to live.

    Attributes:
        source: what it leaves.
        target: where it goes to.
        has_begun: whether a mover has halted it, and perhaps had it depart.
        has_arrived: whether it lives there, and only has to be cleared away.
    """

    source: Partition
    target: Partition
    has_begun: bool = False
    has_arrived: bool = False


async def find_way(
    partitions: Partitions, before: Partition | None, organization: str, target: Partition
) -> Way | None:
    """What is to be done; ``None`` where it lives there, and is on no way.

    Args:
        partitions: all of them.
        before: a single queue where it is unless it has left that.
        organization: whose way.
        target: where it is to live.

    Raises:
        OnItsWayError: it goes elsewhere.
    """
    places = {each.number: each for each in [*partitions, *([before] if before else [])]}
    said = [(each, await Belongings(each, organization).way()) for each in places.values()]
    living = await _living(partitions, before, organization)
    # What is said where it arrives comes first: it may have departed.
    for begins in ("in", "out"):
        for place, (word, _, rest) in ((each, way.partition(":")) for each, way in said):
            if word != begins:
                continue
            other = places[int(rest.partition(":")[0])]
            if word == "out" and place is not living:
                # Who dies when it has arrived leaves behind what is to be cleared away.
                return Way(place, other, has_arrived=True)
            source, to = (other, place) if word == "in" else (place, other)
            if to is not target:
                raise OnItsWayError(organization, to.number)
            # Where its mover was gone before it departed, it may go on by now.
            ways = {each.number: way for each, way in said}
            return Way(source, to, has_begun=ways[source.number].startswith("out:"))
    return None if living is target else Way(living, target)


async def _living(partitions: Partitions, before: Partition | None, organization: str) -> Partition:
    if before and not await Belongings(before, organization).field(before.names.moved):
        return before
    return await partitions.living(organization)
