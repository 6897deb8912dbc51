"""Tests of sign-in, sessions and passwords, with attacks on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.access.attempts import ACCOUNT_FREE, ADDRESS_FREE, LONGEST_PAUSE_S, SignInLimiter, network
from console.access.guard import SESSION
from console.access.passwords import one_time_password, require_good
from console.context import VIEW_S, ConsoleContext
from console.exceptions import BadInput, StateUnusable
from console.state.sessions import IDLE_S, LONGEST_S
from ingest.runtime.clock import ManualClock
from tests.console.conftest import ADDRESS, PASSWORD, Browser

Open = Callable[..., Browser]


async def test_a_page_without_a_session_leads_to_the_sign_in_and_back(browser: Open) -> None:
    one = browser()
    response = await one.get("/audit?user=ada")
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in?next=%2Faudit%3Fuser%3Dada")
    await one.load(response.headers["location"])
    response = await one.submit("/sign-in", name="Ada ", password=PASSWORD, next="/audit?user=ada")
    assert response.headers["location"] == "/audit?user=ada"
    assert "Audit trail" in await one.load("/audit?user=ada")


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/a\r\nX: y"])
async def test_sign_in_never_leads_to_another_site(browser: Open, target: str) -> None:
    response = await browser().sign_in("ada", target=target)
    assert response.headers["location"] == "/"


async def test_a_wrong_password_and_an_unknown_name_get_the_same_response(browser: Open) -> None:
    one = browser()
    wrong, unknown = await one.sign_in("ada", "wrong"), await one.sign_in("nobody", "wrong")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("ada", "") == unknown.text.replace("nobody", "")
    assert SESSION not in one.cookies


async def test_brute_force_on_one_account_is_limited_even_with_the_right_password(
    browser: Open, clock: ManualClock
) -> None:
    for number in range(ACCOUNT_FREE):
        assert (await browser(f"192.0.2.{number}").sign_in("ada", "wrong")).status_code == 401
    limited = await browser("198.51.100.1").sign_in("ada")
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) == 30
    assert (await browser("198.51.100.1").sign_in("vera")).status_code == 303
    clock.advance(31.0)
    assert (await browser("198.51.100.1").sign_in("ada")).status_code == 303


async def test_brute_force_over_many_accounts_from_one_address_is_limited(browser: Open) -> None:
    one = browser()
    statuses = [(await one.sign_in(f"user{number}", "wrong")).status_code for number in range(ADDRESS_FREE + 2)]
    assert statuses == [401] * ADDRESS_FREE + [429] * 2
    assert (await browser("198.51.100.1").sign_in("ada")).status_code == 303


def test_sign_in_pauses_double_up_to_a_maximum_and_a_successful_sign_in_resets_them(clock: ManualClock) -> None:
    limiter, pauses = SignInLimiter(clock), []
    for number in range(ACCOUNT_FREE - 1):
        assert limiter.begin("ada", f"192.0.2.{number}") == 0.0
    for number in range(8):
        assert limiter.begin("ada", f"198.51.100.{number}") == 0.0
        pauses.append(limiter.begin("ada", "203.0.113.1"))
        clock.advance(pauses[-1])
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0] + [LONGEST_PAUSE_S] * 3
    assert limiter.begin("ada", "192.0.2.200") == 0.0
    limiter.succeeded("ada", "192.0.2.200")
    assert limiter.begin("ada", "192.0.2.201") == 0.0
    assert limiter.begin("ada", "192.0.2.201") == 0.0


def test_successful_sign_ins_to_one_account_do_not_reset_the_attempt_limit_of_the_client_address(
    clock: ManualClock,
) -> None:
    limiter = SignInLimiter(clock)
    tried = 0
    while tried < 1000 and limiter.begin(f"victim{tried}", "192.0.2.1") == 0.0:
        tried += 1
        if limiter.begin("own", "192.0.2.1") == 0.0:
            limiter.succeeded("own", "192.0.2.1")
    assert tried <= ADDRESS_FREE


def test_sign_in_limits_treat_all_addresses_of_one_ipv6_network_as_one_address() -> None:
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1")


async def test_a_session_id_from_before_the_sign_in_is_worth_nothing_afterwards(browser: Open) -> None:
    attacker, victim = browser(), browser()
    await attacker.sign_in("vera")
    planted = attacker.cookies[SESSION]
    victim.cookies.set(SESSION, planted, "console.example", "/")
    await victim.sign_in("ada")
    assert victim.cookies[SESSION] != planted
    assert (await attacker.get("/account")).status_code == 303  # the planted session has ended
    victim.cookies.clear()
    victim.cookies.set(SESSION, "chosen-by-an-attacker", "console.example", "/")
    await victim.sign_in("ada")
    assert victim.cookies[SESSION] != "chosen-by-an-attacker"


async def test_forms_without_their_token_or_from_another_site_are_refused(browser: Open) -> None:
    one = browser()
    await one.sign_in("ada")
    fields = {"name": "mallory", "role": "admin", "everywhere": "on"}
    foreign = {"Origin": "https://evil.example"}
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert (await one.post("/users", data=fields)).status_code == 403
    assert (await one.post("/users", data={**fields, "csrf": "guess"})).status_code == 403
    for headers in (foreign, cross, {"Origin": "null"}):
        response = await one.post("/users", data={**fields, "csrf": one.csrf}, headers=headers)
        assert response.status_code == 403, headers
    assert "mallory" not in await one.load("/users")
    own = await one.post("/users", data={**fields, "csrf": one.csrf}, headers={"Origin": ADDRESS})
    assert own.status_code == 200


async def test_sign_in_needs_the_token_of_its_form(browser: Open) -> None:
    one = browser()
    fields = {"name": "ada", "password": PASSWORD}
    assert (await one.post("/sign-in", data=fields)).status_code == 403
    await one.load("/sign-in")
    assert (await one.post("/sign-in", data={**fields, "csrf": "guess"})).status_code == 403
    token, other = one.csrf, browser()
    await other.load("/sign-in")
    assert (await other.post("/sign-in", data={**fields, "csrf": token})).status_code == 403


async def test_the_token_of_one_session_is_refused_in_another_session(browser: Open) -> None:
    one, other = browser(), browser()
    await one.sign_in("ada")
    await other.sign_in("vera")
    other.csrf = one.csrf
    assert (await other.submit("/sign-out")).status_code == 403


async def test_sessions_end_when_idle_and_after_a_week(browser: Open, clock: ManualClock) -> None:
    one = browser()
    await one.sign_in("ada")
    clock.advance(IDLE_S + 1.0)
    assert (await one.get("/account")).status_code == 303
    await one.sign_in("ada")
    used_s = 0.0
    while used_s <= LONGEST_S:
        assert (await one.get("/account")).status_code == 200
        clock.advance(IDLE_S - 1.0)
        used_s += IDLE_S - 1.0
    assert (await one.get("/account")).status_code == 303


async def test_sign_out_ends_one_session_and_sign_out_everywhere_ends_all_sessions(browser: Open) -> None:
    one, two, three = browser(), browser(), browser()
    for each in (one, two, three):
        await each.sign_in("ada")
    secret = one.cookies[SESSION]
    await one.submit("/sign-out")
    one.cookies.set(SESSION, secret, "console.example", "/")
    assert (await one.get("/account")).status_code == 303
    assert (await two.get("/account")).status_code == 200
    await two.submit("/sign-out-everywhere")
    assert (await three.get("/account")).status_code == 303


async def test_the_first_start_prints_a_one_time_password_that_must_be_changed(
    tmp_path: Path, context: ConsoleContext, browser: Open
) -> None:
    fresh = ConsoleContext(tmp_path / "fresh", passwords=context.passwords)
    password = fresh.add_first_admin()
    assert password
    assert fresh.add_first_admin() == ""
    fresh.close()
    assert context.add_first_admin() == ""
    one_time = context.reset_password("ada")
    one = browser()
    assert (await one.sign_in("ada", one_time)).headers["location"] == "/account"
    for path in ("/", "/users", "/audit"):
        assert (await one.get(path)).headers["location"] == "/account", path
    assert (await one.submit("/account/tokens", name="t", role="viewer")).headers["location"] == "/account"
    for new, again in (("short", "short"), (PASSWORD, PASSWORD + "x"), (one_time, one_time), ("ada" * 9, "ada" * 9)):
        response = await one.submit("/account/password", old=one_time, new=new, again=again)
        assert response.status_code == 422, new
    response = await one.submit("/account/password", old=one_time, new=PASSWORD, again=PASSWORD)
    assert response.headers["location"] == "/"
    assert (await one.get("/users")).status_code == 200
    assert (await browser().sign_in("ada", one_time)).status_code == 401


async def test_a_new_password_ends_the_other_sessions_of_the_user_and_renews_the_present_session(
    browser: Open,
) -> None:
    one, two = browser(), browser()
    await one.sign_in("vera")
    await two.sign_in("vera")
    before = one.cookies[SESSION]
    new = "another long passphrase"
    assert (await one.submit("/account/password", old="wrong", new=new, again=new)).status_code == 422
    assert (await one.submit("/account/password", old=PASSWORD, new=new, again=new)).status_code == 303
    assert one.cookies[SESSION] != before
    assert (await one.get("/account")).status_code == 200
    assert (await two.get("/account")).status_code == 303


def test_generated_first_passwords_satisfy_the_rules_for_passwords() -> None:
    require_good(one_time_password(), "admin")
    with pytest.raises(BadInput, match="characters: expected at least 12"):
        require_good("short", "ada")
    with pytest.raises(BadInput, match="at most 1024 bytes"):
        require_good("pass" * 300, "ada")


async def test_cookies_are_closed_to_scripts_and_bound_to_the_host_over_https(
    tmp_path: Path, context: ConsoleContext, browser: Open
) -> None:
    one = browser()
    await one.load("/sign-in")
    response = await one.submit("/sign-in", name="ada", password=PASSWORD)
    cookies = response.headers.get_list("set-cookie")
    assert all("HttpOnly" in cookie and "SameSite=lax" in cookie for cookie in cookies)


def test_a_console_database_of_a_newer_version_and_a_file_that_is_no_database_are_refused(tmp_path: Path) -> None:
    newer = ConsoleContext(tmp_path / "newer")
    newer.database.run("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(StateUnusable, match="newer version"):
        ConsoleContext(tmp_path / "newer")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "console.sqlite").write_text("no database " * 100)
    with pytest.raises(StateUnusable, match="expected a file of the console"):
        ConsoleContext(tmp_path / "other")


async def test_the_audit_trail_has_one_entry_for_repeated_rate_limited_sign_ins_from_one_address(
    browser: Open, context: ConsoleContext, clock: ManualClock
) -> None:
    one = browser()
    for number in range(ADDRESS_FREE + 5):
        await one.sign_in(f"user{number}", "wrong")
    assert len(context.trail.page(action="sign_in_limited")) == 1
    assert len(context.trail.page(action="sign_in_failed")) == ADDRESS_FREE
    clock.advance(VIEW_S)
    for number in range(3):
        await one.sign_in(f"user{number}", "wrong")
    assert len(context.trail.page(action="sign_in_limited")) == 2


@pytest.mark.parametrize(("user", "action"), [("", ""), ("nobody", ""), ("", "none"), ("nobody", "none")])
def test_a_page_of_the_audit_trail_does_not_read_the_whole_trail(
    context: ConsoleContext, monkeypatch: pytest.MonkeyPatch, user: str, action: str
) -> None:
    context.trail.add("signed_in", "ada", "session", "")
    context.trail.add("signed_out", "ada", "session", "")
    plans = []
    rows = context.database.rows

    def explained(statement: str, *values: object) -> Any:
        plans.extend(row["detail"] for row in rows(f"EXPLAIN QUERY PLAN {statement}", *values))
        return rows(statement, *values)

    monkeypatch.setattr(context.database, "rows", explained)
    assert context.trail.actions() == ["signed_in", "signed_out"]
    assert len(context.trail.page(user, action)) == (0 if user or action else 2)
    scans = [plan for plan in plans if plan.startswith("SCAN audit")]
    assert scans == ([] if user or action else ["SCAN audit"])  # the newest entries, by id, up to the limit
