"""Facts about who may ask the console what."""

import asyncio
import re
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, CookieJar
from redis.asyncio import Redis

from shared.program import admin
from shared.queue import keys
from tests.integration.console.site import TOKEN, Site, browsing, told
from tests.integration.console.test_pages import looked
from tests.integration.workplace import Workplace, body
from tests.log_support import captured_log
from worker.operate.console import guard, guesses
from worker.operate.console.guesses import AT_ONCE

PAUSE = "/organizations/org_a/pause"
RUN = ("/runs/12345678/stop", "/runs/12345678/go-on")
READ_TOKEN = "a token to look around"
GARBLED = (
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 3\r\n\r\nabc"
)


async def is_paused(redis: Redis) -> bool:
    return bool(await redis.hexists(keys.ORGANIZATIONS, f"{keys.PAUSE}org_a"))


async def test_an_action_is_done_once_it_is_confirmed(site: Site, redis: Redis) -> None:
    await redis.hset(keys.ORGANIZATIONS, "org_a", ":1")
    asked = await site.get(PAUSE)
    assert "Pause org_a?" in asked.text
    assert not await is_paused(redis)
    answer = await site.confirm(PAUSE, why="maintenance")
    assert answer.status == 200
    assert "maintenance" in answer.text
    assert "org_a is paused" in answer.text
    assert await is_paused(redis)


@pytest.mark.parametrize("token", ["", "0" * 64])
async def test_an_action_without_its_token_is_refused(site: Site, redis: Redis, token: str) -> None:
    await site.get(PAUSE)
    answer = await site.post(PAUSE, {"form_token": token})
    assert answer.status == 403
    assert "out of date" in answer.text
    assert not await is_paused(redis)


async def test_a_token_of_another_session_is_refused(site: Site, redis: Redis) -> None:
    asked = await site.get(PAUSE)
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        other = Site(session, site.port)
        await other.get("/")
        answer = await other.post(PAUSE, asked.fields)
    assert answer.status == 403
    assert not await is_paused(redis)


async def test_a_form_without_a_session_is_refused(site: Site, redis: Redis) -> None:
    asked = await site.get(PAUSE)
    site.session.cookie_jar.clear()
    assert (await site.post(PAUSE, asked.fields)).status == 403
    assert not await is_paused(redis)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_request_from_another_origin_is_refused(
    site: Site, redis: Redis, headers: dict[str, str]
) -> None:
    asked = await site.get(PAUSE)
    answer = await site.post(PAUSE, asked.fields, **headers)
    assert answer.status == 403
    assert not await is_paused(redis)


async def test_a_form_that_names_no_origin_is_refused(site: Site, redis: Redis) -> None:
    asked = await site.get(PAUSE)
    async with site.session.post(f"{site.origin}{PAUSE}", data=asked.fields) as response:
        assert response.status == 403
    assert not await is_paused(redis)


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_another_sites_name_for_this_machine_is_refused(site: Site, name: str) -> None:
    answer = await site.get("/", Host=f"{name}:{site.port}")
    assert answer.status == 403
    assert "CONSOLE_TOKEN" in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.2", "[::1]", "LOCALHOST"])
async def test_every_name_of_this_machine_is_answered(site: Site, name: str) -> None:
    for host in (name, f"{name}:{site.port}"):
        assert (await site.get("/", Host=host)).status == 200


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/console.css", "/livez", PAUSE])
async def test_every_answer_says_what_a_browser_may_do_with_it(site: Site, path: str) -> None:
    headers = (await site.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers


async def test_the_sessions_cookie_is_kept_from_scripts_and_from_other_sites(site: Site) -> None:
    cookie = (await site.get("/")).headers["Set-Cookie"]
    assert cookie.startswith(f"sellfern_console_{site.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    site.session.cookie_jar.clear()
    behind_tls = await site.get("/", **{"X-Forwarded-Proto": "https"})
    assert "Secure" in behind_tls.headers["Set-Cookie"]


async def test_a_page_of_a_known_browser_sets_no_cookie_again(site: Site) -> None:
    await site.get("/")
    assert "Set-Cookie" not in (await site.get("/")).headers


async def test_no_page_holds_a_script_or_a_style_of_its_own(site: Site, place: Workplace) -> None:
    for path in (
        "/",
        "/organizations",
        "/events",
        "/dead-letters",
        "/workers",
        "/actions",
        "/running",
        PAUSE,
    ):
        text = (await site.get(path)).text
        assert "<script>" not in text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert "https://" not in text


async def test_with_a_token_nothing_is_shown_before_it_is_given(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        answer = await site.get("/events?q=evt_1")
        assert answer.path == "/login?next=/events?q%3Devt_1"
        assert "Overview" not in answer.text
        form = {"name": "Ada", "token": TOKEN}
        opened = await site.post(answer.path, form)
        assert opened.path == "/events?q=evt_1"
        assert "Ada" in opened.text


async def test_without_a_token_there_is_nothing_to_sign_in_to(site: Site) -> None:
    assert (await site.get("/login")).path == "/"


async def test_a_wrong_token_opens_nothing(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        for given in ("", TOKEN[:-1], f"{TOKEN} "):
            answer = await site.post("/login", {"name": "Ada", "token": given})
            assert answer.status == 403
            assert "not the token" in answer.text
            assert "Set-Cookie" not in answer.headers
        assert (await site.get("/")).path.startswith("/login")


async def test_whoever_signs_in_again_finds_what_was_typed(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        form = {"form_token": "old", "why": "the ERP's <b>down</b>"}
        asked = await site.post(PAUSE, form)
        assert asked.path.startswith(f"/login?next={PAUSE}?why%3D")
        assert "old" not in asked.path
        opened = await site.post(asked.path, {"name": "Ada", "token": TOKEN})
        assert "Pause org_a?" in opened.text
        assert 'value="the ERP&#39;s &lt;b&gt;down&lt;/b&gt;"' in opened.text
        await site.session.get(f"{site.origin}/")  # nothing was done by any of that
        site.session.cookie_jar.clear()
        asked = await site.post("/organizations/org_a/resume", {"rate": "7/s"})
        opened = await site.post(asked.path, {"name": "Ada", "token": TOKEN})
        assert 'name="rate" maxlength="20" value="7/s"' in opened.text
        site.session.cookie_jar.clear()
        chosen = {"verb": "replay", "all": "1", "reason": "rejected", "rate": "7", "force": "1"}
        asked = await site.post("/dead-letters/confirm", chosen)
        opened = await site.post(asked.path, {"name": "Ada", "token": TOKEN})
        assert opened.fields["reason"] == "rejected"
        assert 'value="7"' in opened.text
        assert 'value="1" checked>' in opened.text
        for path, there in (("/runs/x/go-on", "/runs/x"), ("/logout", "/"), (PAUSE, PAUSE)):
            site.session.cookie_jar.clear()
            asked = await site.post(path, {"why": "x" * (5000 if path == PAUSE else 0)})
            assert asked.path == f"/login?next={there}{'?why%3D' * (path == '/runs/x/go-on')}"
    assert not await is_paused(redis)


async def test_who_signs_in_gives_a_name_for_the_log(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        for name in ("", "x" * 65, "<b>"):
            answer = await site.post("/login", {"name": name, "token": TOKEN})
            assert answer.status == 403
            assert "A name has up to 64" in answer.text


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", ""]
)
async def test_signing_in_leads_nowhere_but_here(redis: Redis, wanted: str) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        url = f"{site.origin}/login"
        async with site.session.post(
            url,
            params={"next": wanted},
            data={"name": "Ada", "token": TOKEN},
            headers={"Origin": site.origin},
            allow_redirects=False,
        ) as response:
            assert response.status == 303
            assert response.headers["Location"] in {"/", "/%5Cevil.example"}  # a path, so here


async def test_signing_out_ends_the_session_wherever_its_cookie_is(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        opened = await site.post("/login", {"name": "Ada", "token": TOKEN})
        kept = {each.key: each.value for each in site.session.cookie_jar}
        await site.post("/logout", opened.fields)
        assert (await site.get("/")).path.startswith("/login")
        site.session.cookie_jar.update_cookies(kept)
        assert (await site.get("/")).path.startswith("/login")
        assert (await site.post(PAUSE, opened.fields)).path.startswith("/login")
    assert not await is_paused(redis)


async def test_who_guesses_is_slowed_and_logged_and_keeps_no_known_browser_out(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "SECONDS", 3600.0)  # however busy this machine is
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        opened = await site.post("/login", {"name": "Ada", "token": TOKEN})
        await site.post("/logout", opened.fields)
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            other = Site(session, site.port)
            with captured_log("warning") as log:
                guessed = [
                    await other.post("/login", {"name": "Eve", "token": f"guess {number}"})
                    for number in range(9)
                ]
                assert len(told(log, "console_sign_in_refused")) == AT_ONCE
                (slowed,) = told(log, "console_sign_in_slowed")
            assert (slowed["who"], slowed["address"]) == ("Eve", "127.0.0.1")
            statuses = [each.status for each in guessed]
            assert statuses == [403] * AT_ONCE + [429] * (9 - AT_ONCE)
            assert "Try again in" in guessed[-1].text
            assert int(guessed[-1].headers["Retry-After"]) > 1
            # The right one isn't looked at either, or a guess would be as good as before.
            late = await other.post("/login", {"name": "Eve", "token": TOKEN})
            assert late.status == 429
        again = await site.post("/login", {"name": "Ada", "token": TOKEN})
        assert again.path == "/"


async def test_a_restart_makes_no_known_browser_a_strange_one(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "SECONDS", 3600.0)  # however busy this machine is
    form = {"name": "Ada", "token": TOKEN}
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        await site.post("/login", form)
        names = {each.key: each.value for each in site.session.cookie_jar}
        known = names[f"sellfern_console_{site.port}_browser"]
    for token, status in ((TOKEN, 200), (f"another {TOKEN}", 429)):
        async with browsing(redis, CONSOLE_TOKEN=token) as site:
            for _ in range(AT_ONCE):
                await site.post("/login", {**form, "token": "a guess"})
            assert (await site.post("/login", {**form, "token": token})).status == 429
            site.session.cookie_jar.update_cookies({f"sellfern_console_{site.port}_browser": known})
            assert (await site.post("/login", {**form, "token": token})).status == status


async def test_who_may_only_look_guesses_no_faster_and_is_kept_out_by_nobody(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "SECONDS", 3600.0)  # however busy this machine is
    async with browsing(redis, CONSOLE_TOKEN=TOKEN, CONSOLE_READ_TOKEN=READ_TOKEN) as site:
        statuses = []
        for number in range(AT_ONCE + 2):
            if number < AT_ONCE:
                site.session.cookie_jar.clear()  # each time another browser
            form = {"name": "Eve", "token": READ_TOKEN}
            assert (await site.post("/login", form)).status == 200
            guess = await site.post("/login", {**form, "token": f"guess {number}"})
            statuses.append(guess.status)
        assert statuses == [403] * AT_ONCE + [429] * 2
        assert (await site.post("/login", {"name": "Eve", "token": TOKEN})).status == 429


async def test_who_may_only_look_sees_all_and_changes_nothing(
    redis: Redis, place: Workplace
) -> None:
    await place.handle(body("evt_1", type="order.exploded"))
    await redis.hset(keys.ORGANIZATIONS, "breaker:org_a", f"open:{4 * keys.DEFERRED_FROM}")
    async with browsing(redis, CONSOLE_TOKEN=TOKEN, CONSOLE_READ_TOKEN=READ_TOKEN) as site:
        form = {"name": "Ada", "token": TOKEN}
        opened = await site.post("/login", form)
        await looked(site, "its breaker is open")
        (letter,) = (await site.get("/dead-letters")).links("/event?")
        confirm = f"/dead-letters/confirm?verb=replay&{letter.partition('?')[2]}"
        pages = ("/", "/organizations", "/organizations/org_a", "/dead-letters", letter)
        acting = re.compile(r"/(pause|resume)\"|/confirm|name=\"job\"|>Stop<")
        for path in pages:
            assert acting.search((await site.get(path)).text), path
        await site.post("/logout", opened.fields)
        opened = await site.post("/login", {**form, "token": READ_TOKEN})
        assert "may only look" in opened.text
        for path in pages:
            shown = await site.get(path)
            assert shown.status == 200
            assert not acting.search(shown.text), path
        for path in (PAUSE, "/organizations/org_a/resume", confirm, *RUN):
            if not path.startswith("/runs"):
                assert (await site.get(path)).status == 403
            job = {"verb": "replay", "job": "org_a:x", "all": "1"}
            refused = await site.post(path.partition("?")[0], {**opened.fields, **job})
            assert refused.status == 403
            assert "may look at everything, and change nothing" in refused.text
        assert not await redis.zcard(keys.ACCEPTED)
        assert not await is_paused(redis)
        await site.post("/logout", opened.fields)
        assert (await site.get("/")).path.startswith("/login")
    async with browsing(redis, CONSOLE_READ_TOKEN=READ_TOKEN) as site:
        assert (await site.get("/")).path.startswith("/login")
        assert (await site.post("/login", {"name": "Ada", "token": ""})).status == 403
        assert (await site.post("/login", {"name": "Ada", "token": READ_TOKEN})).status == 200
        assert (await site.get(PAUSE)).status == 403


async def test_a_refreshing_page_whose_session_is_over_is_sent_to_sign_in(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        answer = await site.get("/", **{"HX-Request": "true"})
    assert answer.status == 204
    assert answer.headers["HX-Refresh"] == "true"


async def test_with_a_token_the_console_may_have_any_name(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        answer = await site.get("/login", Host="console.example")
    assert answer.status == 200


async def test_probes_are_answered_without_a_token(redis: Redis) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        assert (await site.get("/livez")).status == 200
        assert (await site.get("/readyz")).status == 200


@pytest.mark.parametrize("path", ["/static/nothing.css", "/static/..%2Fapp.py", "/static/"])
async def test_only_the_few_files_of_the_pages_are_served(site: Site, path: str) -> None:
    assert (await site.get(path)).status == 404


async def test_files_are_kept_by_a_browser_until_they_change(site: Site) -> None:
    (path, *_) = (await site.get("/")).links("/static/console.css")
    assert "immutable" in (await site.get(path)).headers["Cache-Control"]
    assert "no-cache" in (await site.get("/static/console.css")).headers["Cache-Control"]


async def test_a_page_is_only_looked_at(site: Site) -> None:
    asked = await site.get(PAUSE)
    assert (await site.post("/workers", asked.fields)).status == 405


async def test_a_form_larger_than_any_is_refused(site: Site) -> None:
    asked = await site.get(PAUSE)
    answer = await site.post(PAUSE, {**asked.fields, "why": "x" * 100_000})
    assert answer.status == 413


@pytest.mark.parametrize("host", ["console:x", "console:99999999", "x@console:y"])
async def test_a_host_that_is_none_is_refused_and_no_failure(redis: Redis, host: str) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        for path in ("/", "/login"):
            assert (await site.get(path, Host=host)).status == 400


@pytest.mark.parametrize("wanted", ["//[", "//host:x", "http://host:99999999"])
async def test_a_next_page_that_is_none_is_the_first(redis: Redis, wanted: str) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        assert 'action="/login?next=%2F"' in (await site.get(f"/login?next={quote(wanted)}")).text


@pytest.mark.parametrize(
    ("kind", "sent", "status"),
    [
        ("multipart/form-data", b"", 415),
        ("multipart/form-data; boundary=x", b"nothing", 415),
        ("application/x-www-form-urlencoded; charset=nothing", b"a=b", 415),
        ("application/x-www-form-urlencoded; charset=utf-16", b"a=b", 415),
        ("application/x-www-form-urlencoded", b"a=\xff", 400),
    ],
)
async def test_a_form_that_no_page_sends_is_refused_and_no_failure(
    redis: Redis, kind: str, sent: bytes, status: int
) -> None:
    async with browsing(redis, CONSOLE_TOKEN=TOKEN) as site:
        headers = {"Origin": site.origin, "Content-Type": kind}
        for path in ("/login", PAUSE):
            url = f"{site.origin}{path}"
            async with site.session.post(url, data=sent, headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: local", b""),
        (GARBLED.replace(b"gzip", b"identity")[:-1], b"HTTP/1.1 408 Request Timeout\r\n"),
    ],
)
async def test_who_says_nothing_or_never_ends_is_left(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, sent: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(admin, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(guard, "_FORM_SECONDS", 0.2)
    async with browsing(redis) as site, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(sent)
        assert (await reader.readline()) == answer  # nothing where it was closed
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / it HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        (GARBLED, 400),
    ],
)
async def test_what_is_no_request_is_refused_and_no_failure(
    site: Site, sent: bytes, status: int
) -> None:
    with captured_log("warning") as log:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(sent)
        assert int((await reader.readline()).split()[1]) == status
        writer.close()
        await site.get("/livez")  # whatever is said of it has been said by then
    assert "Traceback" not in log.text
