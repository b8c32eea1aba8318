"""Facts about what links and fields are called: who hears a name has to know where it leads."""

from html.parser import HTMLParser

from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.console.site import Site
from tests.integration.console.test_pages import looked
from tests.integration.workplace import Workplace, body
from worker.operate import organizations

CONFIRM = "/dead-letters/confirm?verb=replay&all=1&organization=org_a&limit=1"
PAGES = (
    "/",
    "/organizations",
    "/organizations/org_a",
    "/events",
    "/events?q=evt_1",
    "/dead-letters",
    "/dead-letters/groups",
    "/actions",
    "/workers",
    "/running",
)


class Names(HTMLParser):
    """What links and boxes to tick are called, with where they lead and what they stand for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: dict[str, set[str]] = {}
        self.boxes: list[str] = []
        self._open: list[str] | None = None
        self._to = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "a":
            self._to, self._open = told["href"], []
            if label := told.get("aria-label"):
                self._name(label)
        elif told.get("type") == "checkbox":
            self.boxes.append(told.get("aria-label", ""))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open is not None:
            self._name(" ".join("".join(self._open).split()))

    def _name(self, name: str) -> None:
        self.links.setdefault(name, set()).add(self._to)
        self._open = None


async def test_no_two_links_of_a_page_have_one_name_and_lead_elsewhere(
    site: Site, place: Workplace, redis: Redis
) -> None:
    for name in ("org_a", "org_b"):
        for number in range(3):
            dead = body(f"evt_{number}", name, type="order.exploded")
            await place.handle(dead, organization=name)
    for number in range(6):
        name = f"org_{number}"
        await place.accept(body("evt_1", name), organization=name)
        open_for_long = f"open:{4 * keys.DEFERRED_FROM}"
        await redis.hset(keys.ORGANIZATIONS, f"breaker:{name}", open_for_long)
    for name in ("org_6", "org_7", "org_8", "org_9"):
        await organizations.pause(place.partition, name, "why")
    await looked(site, "4 organizations are paused")
    for _ in range(2):
        await site.confirm(CONFIRM)
    (group, *_) = (await site.get("/dead-letters/groups")).links("/dead-letters/group?")
    for path in (*PAGES, group):
        shown = await site.get(path)
        assert shown.status == 200
        names = Names(shown.text)
        twice = {name: to for name, to in names.links.items() if len(to) > 1}
        assert not twice, path
        assert "" not in names.links
        assert len(set(names.boxes)) == len(names.boxes), path
