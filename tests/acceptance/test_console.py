"""Facts about the console as a person uses it: a process, a real browser, the keyboard."""

import contextlib
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec import structs
from playwright.async_api import Page, async_playwright, expect
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.actions import Action, record
from tests.acceptance import warm
from tests.acceptance.process import ROOT, Program, environment, run
from tests.acceptance.worker_process import running
from tests.integration.jobs import reach
from tests.integration.workplace import Workplace, body
from tests.tools import missing
from worker import Event, Handlers, Organization, Reject
from worker.at_work import AtWork, Doing
from worker.operate import organizations
from worker.operate.revival import Progress
from worker.operate.runs import Going, Run

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES: Final = {"phone": (390, 844), "desktop": (1280, 900)}
PAGES: Final = (
    *(
        "/",
        "/organizations",
        "/events",
        "/dead-letters",
        "/dead-letters/groups",
        "/workers",
        "/actions",
        "/running",
        "/nothing",
    ),
    *("/events?q=evt_nowhere&organization=org_a", "/organizations/org_nobody/pause"),
    *("/organizations/org_a", "/organizations/org_nobody"),
)
PATIENCE: Final = 20_000.0
"""Milliseconds."""

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  # what the token is for
TOKEN: Final = "a token of the console"


@pytest.fixture(scope="module")
def browser() -> str:
    """Give the path of a browser; a machine without one skips, but CI has to have one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing(f"no browser is installed: expected one of {', '.join(BROWSERS)} on PATH")
    return found


@contextlib.asynccontextmanager
async def opened(
    browser: str, folder: Path, *, may_complain: bool = False, **options: Any
) -> AsyncIterator[Page]:
    """A page of a new browser; it fails the test for whatever the browser complains of."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=browser, args=FLAGS, headless=True, **options
        )
        page = context.pages[0]
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: complaints.append(line.text) if line.type != "log" else None,
        )
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        try:
            yield page
        finally:
            await context.close()
    assert may_complain or [each for each in complaints if "404" not in each] == []


@contextlib.asynccontextmanager
async def console(environ: dict[str, str]) -> AsyncIterator[tuple[Program, str]]:
    """The console as a process, and its address."""
    words = (sys.executable, "-m", "worker", "console")
    program = Program(await warm.start(*words, cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE))
    try:
        (line,) = await program.logged("console_listening")
        yield program, f"http://127.0.0.1:{line['port']}"
    finally:
        await program.stop()


async def some_dead(redis: Redis, number: int = 3) -> None:
    """Events of a handler that rejects them, and one with a script in every name."""
    handlers = Handlers()

    @handlers.on("order.updated")
    async def reject(event: Event[Any], organization: Organization) -> Reject:
        return Reject("the ERP does not know <script>alert(1)</script>")

    place = Workplace(redis, handlers)
    await place.handle(body("<script>alert(2)</script>", type="<img src=x onerror=alert(3)>"))
    for each in range(number):
        await place.handle(body(f"evt_{each}"))


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until something of this name has the focus."""
    for _ in range(120):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(
            "(e => e.innerText || e.getAttribute('aria-label') || e.name || '')"
            "(document.activeElement)"
        )
        if focused.split("\n")[0].strip().startswith(name):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus on {name} can't be seen"
            return
    raise AssertionError(f"{name} can't be reached by the keyboard on {page.url}")


async def press(page: Page, name: str) -> None:
    """Go to something by the keyboard, and press it."""
    await tab_to(page, name)
    async with page.expect_navigation():
        await page.keyboard.press("Enter")


async def fits(page: Page) -> None:
    """Nothing is wider than the screen."""
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert page.viewport_size is not None
    assert width <= page.viewport_size["width"], page.url


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("desktop", "light")])
async def test_a_dead_letter_is_replayed_by_the_keyboard_alone(
    redis: Redis,
    redis_server: EmbeddedRedis,
    browser: str,
    tmp_path: Path,
    size: str,
    scheme: Any,
) -> None:
    await some_dead(redis)
    environ = environment(
        redis_server.url, tmp_path, CONSOLE_PORT="0", WORKER_HANDLERS="worker.handlers:handlers"
    )
    width, height = SIZES[size]

    async with (
        console(environ) as (program, address),
        running(environ),
        opened(
            browser, tmp_path, viewport={"width": width, "height": height}, color_scheme=scheme
        ) as page,
    ):

        async def picture(name: str) -> None:
            await fits(page)
            path = tmp_path / f"{name}-{size}-{scheme}.png"
            await page.screenshot(path=path, full_page=True)

        await page.goto(address)
        await expect(page.locator("nav a", has_text="Workers")).to_contain_text("1")
        await picture("overview")
        await press(page, "Dead letters")
        await picture("dead-letters")
        await press(page, "evt_1")
        await picture("dead-letter")
        await press(page, "Replay")
        await expect(page.locator("h1")).to_have_text("Replay this dead letter?")
        await picture("confirm")
        await press(page, "Replay")
        await expect(page.locator(".notice")).to_contain_text("Replayed")
        # The page refreshes itself until the worker has handled it.
        await expect(page.locator(".head .tag")).to_have_text("handled")
        await picture("handled")
        (line,) = program.events("operator_action")
        assert line["outcome"] == "queued"
        for path in PAGES:
            await page.goto(f"{address}{path}")
            await picture(path.strip("/").replace("/", "-") or "overview-later")
        await page.goto(f"{address}/dead-letters/groups")
        await press(page, "the ERP does not know <script>")
        await expect(page.locator(".box h2").first).to_have_text("2 dead letters of this")
        await picture("failure-group")


# What lies beyond the screen's edge, or beyond that of what hides the rest of it. What is cut on
# purpose says so by an ellipsis.
_CLIPPED: Final = """() => [...document.querySelectorAll('body *')].filter(each => {
  const style = getComputedStyle(each), box = each.getBoundingClientRect();
  if (!box.width || !each.innerText?.trim() || each.closest('.skip, .clip, thead')) return false;
  const hides = style.overflowX !== 'visible' && each.scrollWidth > each.clientWidth + 1;
  return hides || box.right > innerWidth + 1 || box.left < -1;
}).map(each => each.outerHTML.slice(0, 200))"""

# Cells of a row that lie on each other.
_OVERLAPPING: Final = """() =>
  [...document.querySelectorAll('tbody tr, dl, .actions, .who, nav ul')].flatMap(row => {
    const boxes = [...row.children].filter(each => getComputedStyle(each).position !== 'absolute')
      .map(each => each.getBoundingClientRect()).filter(box => box.width && box.height);
    return boxes.flatMap((one, n) => boxes.slice(n + 1).filter(other =>
      one.left < other.right - 1 && other.left < one.right - 1 &&
      one.top < other.bottom - 1 && other.top < one.bottom - 1).map(() => row.innerText));
  })"""


LONG: Final = "a_name_that_knows_no_end_" * 4
LONGEST: Final = "org_" + "a" * 60


async def some_of_everything(redis: Redis) -> list[str]:
    """What has as long names as may be; the pages that show it."""
    handlers = Handlers()

    @handlers.on("order.updated")
    async def act(event: Event[Any], _: Organization) -> Reject | None:
        if event.id.startswith("evt_dead"):
            return Reject(f"the ERP does not know {LONG}")
        raise KeyError(LONG)

    place = Workplace(redis, handlers)
    await place.handle(body(f"evt_dead_{LONG}", LONGEST), organization=LONGEST)
    await place.handle(body(f"evt_{LONG}", LONGEST), organization=LONGEST)
    (job,) = [each.decode() for each in await redis.zrange(keys.ACCEPTED, 0, -1)]
    (dead,) = [each.decode() for each in await redis.zrange(keys.dead(LONGEST), 0, -1)]
    (group,) = await redis.hmget(keys.dead_letter(dead), ["group"])
    await organizations.pause(place.partition, LONGEST, f"since {LONG}")
    await _at_work(place)
    run = Run("replay", f"organization {LONG}", LONG, address=LONG, times=0)
    run.progress = Progress(queued=3, died_again=1, deaths={f"rejected: {LONG}": 1})
    run.state, run.note = "stopped", f"stopped by {LONG}"
    await Going(run, reach(redis), lambda *_: None).begin()
    done = Action("pause", "command", LONG, LONG, organization=LONGEST, job=job, about=LONG)
    await record(reach(redis), done, lambda *_: None)
    chosen = f"id={LONGEST}:{group.decode()}"
    return [
        *("/", "/running", "/workers", "/actions", f"/runs/{run.id}", "/organizations"),
        *("/events", f"/events?q={LONG}", f"/event?job={job}", f"/event?job={dead}"),
        *("/dead-letters", "/dead-letters/groups", f"/dead-letters/group?{chosen}"),
        f"/dead-letters/confirm?verb=replay&all=1&type={LONG}",
        f"/dead-letters/confirm?verb=discard&job={dead}",
        *(f"/organizations/{LONGEST}", f"/organizations/{LONGEST}/resume"),
    ]


async def _at_work(place: Workplace) -> None:
    """A worker that stands still, and one that is lost."""
    named = ("org_a:1", time.time() - 90, f"shop.orders.{LONG}", LONGEST, f"evt_{LONG}")
    stack = f"/srv/{LONG}.py:1 in main > /srv/shop/{LONG}.py:12 in {LONG}"
    doing = [Doing(*named, "order.paid", state, stack) for state in ("blocking", "running")]
    doing[1] = structs.replace(doing[1], job="org_a:2")
    described = msgspec.json.encode({"host": LONG, "version": "1.2.3", "running": 3, "pid": 99})
    for name, lease in ((f"w1-{LONG}", 300), (f"w2-{LONG}", 300), (f"w2-{LONG}", 0.001)):
        await place.transitions.renew(name, [], description=described, slots=4, lease=lease)
        await place.transitions.show(name, msgspec.json.encode(AtWork(time.time(), doing)))
    await place.transitions.renew(f"w2-{LONG}", [], description=described, slots=4, lease=0.001)


async def test_a_stuck_worker_is_found_in_a_click_and_no_page_clips_anything(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    """On a phone, at 200 % of a small screen, and on a large one, by day and by night."""
    pages = await some_of_everything(redis)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    async with console(environ) as (_, address), opened(browser, tmp_path) as page:
        await page.goto(address)
        finding = page.locator(".findings li.bad").first
        await expect(finding).to_contain_text("has stood still for", timeout=PATIENCE)
        for told in (f"w1-{LONG}", f"shop.orders.{LONG}", f"evt_{LONG}", f"in {LONG}"):
            await expect(finding).to_contain_text(told)
        await finding.get_by_role("link", name="Running now").click()
        await expect(page.locator("h1")).to_have_text("Running now")
        await expect(page.locator("tbody tr").first).to_contain_text("blocks the worker")
        await expect(page.locator("pre").first).to_contain_text(f"/srv/shop/{LONG}.py:12")
        for path in pages:
            answer = await page.goto(f"{address}{path}{'&' if '?' in path else '?'}live=off")
            assert answer is not None
            assert answer.status == 200, path
            await look_at(page, path, tmp_path)


async def look_at(page: Page, path: str, folder: Path) -> None:
    """See that nothing of the page is clipped, nor lies on something else."""
    for width, scheme in ((390, "dark"), (640, "light"), (1280, "dark")):
        await page.set_viewport_size({"width": width, "height": 800})
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        name = path.partition("?")[0].strip("/").replace("/", "-")[-60:]
        picture = f"{name}-{width}-{scheme}.png"
        await page.screenshot(path=folder / picture, full_page=True)
        await fits(page)
        assert await page.evaluate(_CLIPPED) == [], (path, width)
        assert await page.evaluate(_OVERLAPPING) == [], (path, width)


async def test_a_bad_deploys_letters_are_one_group_whose_sample_is_replayed_first(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    await some_dead(redis, 13)
    environ = environment(
        redis_server.url, tmp_path, CONSOLE_PORT="0", WORKER_HANDLERS="worker.handlers:handlers"
    )
    width, height = SIZES["phone"]
    async with (
        console(environ) as (_, address),
        running(environ),
        opened(browser, tmp_path, viewport={"width": width, "height": height}) as page,
    ):

        async def click(name: str) -> None:
            await page.get_by_role("link", name=name).first.click()
            await fits(page)

        await page.goto(address)
        for name in ("Dead letters", "Failure groups", "the ERP does not know"):
            await click(name)
        letters = page.locator(".box h2").first
        await expect(letters).to_have_text("13 dead letters of this")
        group = page.url
        await page.get_by_role("button", name="Replay a sample of 5").click()
        await expect(page.locator(".notice")).to_contain_text("5 handled", timeout=PATIENCE)
        await page.goto(group)
        await expect(letters).to_have_text("8 dead letters of this")
        await expect(page.locator(".notice")).to_contain_text("5 replayed: 5 handled")
        await fits(page)
        await click("Discard all 8")
        await expect(page.locator("h1")).to_have_text("Discard 8 dead letters?")
        # Its page refreshes itself: who presses twice, as where it seems to hang, begins one run.
        await page.goto(f"{address}/organizations/org_a")
        run = page.locator("input[name=run]")
        begun = await run.input_value()
        await page.evaluate("document.querySelector('h1').textContent = 'before'")
        await expect(page.locator("h1")).not_to_have_text("before", timeout=PATIENCE)
        assert await run.input_value() == begun
        # But for who has gone back to it, as a browser tells a page that it has kept meanwhile.
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        await expect(run).not_to_have_value(begun, timeout=PATIENCE)


async def test_a_page_that_refreshes_itself_asks_for_one_run_however_often_it_is_pressed(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    await some_dead(redis, 6)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    async with console(environ) as (_, address), opened(browser, tmp_path) as page:
        await page.goto(f"{address}/organizations/org_a")
        run = page.locator("input[name=run]")
        asked_for = await run.input_value()
        await organizations.pause(Workplace(redis).partition, "org_a", "what the page shows next")
        shown = page.locator("main")
        await expect(shown).to_contain_text("what the page shows next", timeout=PATIENCE)
        assert await run.input_value() == asked_for
        await page.reload()
        assert await run.input_value() != asked_for


async def test_everything_works_with_scripts_off(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    await some_dead(redis)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    async with (
        console(environ) as (program, address),
        opened(browser, tmp_path, java_script_enabled=False) as page,
    ):
        await page.goto(f"{address}/dead-letters")
        for name in ("evt_0", "evt_1"):
            await page.get_by_label(f"Choose {name}").check()
        await page.get_by_role("button", name="Discard chosen").click()
        await expect(page.locator("h1")).to_have_text("Discard 2 dead letters?")
        await page.get_by_role("button", name="Discard").click()
        await expect(page.locator("progress")).to_have_count(1)
        await program.logged("operator_action", outcome="finished: 2 discarded")
        await page.goto(f"{address}/dead-letters")
        await expect(page.locator("input[name=job]")).to_have_count(2)


async def test_all_of_a_page_are_chosen_by_one_box(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    await some_dead(redis)
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    async with console(environ) as (_, address), opened(browser, tmp_path) as page:
        await page.goto(f"{address}/dead-letters")
        replay = page.get_by_role("button", name="Replay chosen")
        await expect(replay).to_be_disabled()
        await page.get_by_label("Choose all on this page").check()
        await expect(page.locator("[data-number]")).to_have_text("4 chosen")
        await replay.click()
        await expect(page.locator("h1")).to_have_text("Replay 4 dead letters?")


async def test_a_page_says_when_the_console_or_redis_is_gone(
    fresh_redis_server: Any, browser: str, tmp_path: Path
) -> None:
    server = fresh_redis_server(appendfsync="no")
    environ = environment(server.url, tmp_path, CONSOLE_PORT="0")
    async with (
        console(environ) as (program, address),
        opened(browser, tmp_path, may_complain=True) as page,  # of what is taken away
    ):
        await page.goto(address)
        await expect(page.locator(".calm")).to_contain_text("All is well")
        server.stop()
        banner = page.locator("#page .banner")
        await expect(banner).to_contain_text("Redis does not answer", timeout=PATIENCE)
        await program.stop()
        await expect(page.locator("#stale")).to_be_visible(timeout=PATIENCE)


async def test_a_token_opens_the_console_to_other_machines(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    environ = environment(
        redis_server.url, tmp_path, CONSOLE_PORT="0", CONSOLE_HOST=EVERYWHERE, CONSOLE_TOKEN=TOKEN
    )
    async with console(environ) as (program, address), opened(browser, tmp_path) as page:
        await page.goto(f"{address}/workers")
        await fits(page)
        await page.screenshot(path=tmp_path / "login.png")
        await page.keyboard.type("Ada")
        await page.keyboard.press("Tab")
        await page.keyboard.type(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Workers")
        await expect(page.locator(".who")).to_contain_text("Ada")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("h1")).to_contain_text("Sellfern console")
        assert program.events("console_signed_in", who="Ada")
        assert TOKEN not in program.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"CONSOLE_HOST": EVERYWHERE},
            (
                "error: CONSOLE_TOKEN: expected a token of at least 16 characters, since "
                "CONSOLE_HOST (0.0.0.0) can be reached from other machines, got nothing\n"
            ),
        ),
        (
            {"CONSOLE_TOKEN": "short"},
            "error: CONSOLE_TOKEN: expected at least 16 characters, got 5 of them\n",
        ),
        (
            {"CONSOLE_HOST": "192.0.2.1", "CONSOLE_TOKEN": TOKEN},
            "error: CONSOLE_HOST: expected an address of this machine, got '192.0.2.1'\n",
        ),
    ],
)
async def test_a_console_that_cannot_start_says_why(
    redis_server: EmbeddedRedis, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0", **changes)
    ended = await run("worker", "console", environ=environ)
    assert (ended.code, ended.stderr) == (2, message)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_console_ends_when_it_is_told_to(
    redis_server: EmbeddedRedis, tmp_path: Path, number: signal.Signals
) -> None:
    environ = environment(redis_server.url, tmp_path, CONSOLE_PORT="0")
    async with console(environ) as (program, _):
        program.send(number)
        assert await program.ended() == 0
        assert "Traceback" not in program.text
