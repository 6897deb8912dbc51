"""Tests of the pages for users, tokens and the audit trail, and of the headers of all responses."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

import pytest

from console.access.headers import MAX_BODY_BYTES
from console.access.roles import Role
from console.context import ConsoleContext
from console.pages.render import STATIC
from ingest.runtime.clock import ManualClock
from tests.console.conftest import PASSWORD, Browser

Open = Callable[..., Browser]
SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "path", ["/sign-in", "/health", "/static/app.css", "/nowhere", "/account", "/static/../app.py"]
)
async def test_every_response_has_a_strict_content_security_policy_and_no_inline_scripts_or_styles(
    browser: Open, path: str
) -> None:
    one = browser()
    await one.sign_in("ada")
    response = await one.get(path)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy
    if "html" in response.headers["content-type"]:
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=)", response.text)
        assert response.headers["cache-control"] == "no-store"


async def test_a_page_links_static_files_that_browsers_may_cache_as_immutable(browser: Open) -> None:
    one = browser()
    html = await one.load("/sign-in")
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    assert len(addresses) >= 4
    for address in addresses:
        response = await one.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]


@pytest.mark.parametrize("path", ["/static/../context.py", "/static/%2e%2e/context.py", "/static/..%2fcontext.py"])
async def test_static_files_outside_their_folder_are_not_served(browser: Open, path: str) -> None:
    response = await browser().get(path)
    assert response.status_code == 404
    assert "import" not in response.text


def test_vendored_files_have_their_licences() -> None:
    names = {file.name.split(".")[0] for file in (STATIC / "vendor").glob("*.js")}
    assert names == {file.name.split(".")[0] for file in (STATIC / "vendor").glob("*.LICENSE")}


async def test_large_requests_are_refused(browser: Open) -> None:
    one = browser()
    await one.load("/sign-in")
    assert (await one.submit("/sign-in", name="a" * MAX_BODY_BYTES)).status_code == 413
    assert (await one.post("/sign-in", data={f"f{n}": "" for n in range(2000)})).status_code == 422


async def test_the_theme_switch_changes_the_colours_of_the_page(browser: Open) -> None:
    one = browser()
    assert 'data-theme="auto"' in await one.load("/sign-in")
    await one.submit("/theme", theme="dark", next="/sign-in")
    assert 'data-theme="dark"' in await one.load("/sign-in")
    await one.submit("/theme", theme='"><script>', next="/sign-in")
    assert 'data-theme="auto"' in await one.load("/sign-in")


@pytest.mark.parametrize(("name", "allowed"), [("ada", True), ("otto", False), ("vera", False)])
async def test_only_an_admin_of_all_sites_and_cameras_sees_the_users_and_the_audit_trail(
    browser: Open, name: str, allowed: bool
) -> None:
    one = browser()
    await one.sign_in(name)
    for path in ("/users", "/audit"):
        assert (await one.get(path)).status_code == (200 if allowed else 403), path
    assert ((await one.submit("/users", name="new", role="viewer")).status_code == 200) is allowed
    assert ('href="/users"' in await one.load("/account")) is allowed


async def test_an_admin_limited_to_some_sites_or_cameras_cannot_manage_users(browser: Open) -> None:
    one, limited = browser(), browser()
    await one.sign_in("ada")
    await one.load("/users")
    response = await one.submit("/users", name="lena", role="admin", sites="north, south", cameras="gate")
    secret = re.search(r'<code class="secret">([^<]+)', response.text)
    assert secret
    await limited.sign_in("lena", secret.group(1))
    await limited.submit("/account/password", old=secret.group(1), new=PASSWORD, again=PASSWORD)
    assert (await limited.get("/account")).status_code == 200
    assert (await limited.get("/users")).status_code == 403


async def test_changed_rights_of_a_user_apply_to_the_next_request_of_an_open_session(
    browser: Open, context: ConsoleContext
) -> None:
    one, vera = browser(), browser()
    await one.sign_in("ada")
    await vera.sign_in("vera")
    number = next(user.id for user in context.users.all() if user.name == "vera")
    await one.submit(f"/users/{number}", role="admin", everywhere="on", enabled="on")
    assert (await vera.get("/users")).status_code == 200
    await one.submit(f"/users/{number}", role="viewer")
    assert (await vera.get("/account")).status_code == 303
    assert (await vera.sign_in("vera")).status_code == 401
    assert (await one.submit(f"/users/{number}/remove")).status_code == 303
    assert "vera" not in {user.name for user in context.users.all()}
    assert (await one.submit(f"/users/{number}/reset")).status_code == 404


async def test_the_last_admin_can_be_neither_removed_nor_limited(browser: Open, context: ConsoleContext) -> None:
    one = browser()
    await one.sign_in("ada")
    number = next(user.id for user in context.users.all() if user.name == "ada")
    assert (await one.submit(f"/users/{number}/remove")).status_code == 422
    assert (await one.submit(f"/users/{number}", role="admin", enabled="on", sites="north")).status_code == 422
    assert (await one.submit(f"/users/{number}", role="admin", everywhere="on")).status_code == 422
    assert (await one.get("/users")).status_code == 200


@pytest.mark.parametrize("name", ["", " ", "a" * 65, "böse", SCRIPT, "a b", "ADA"])
async def test_unusable_and_taken_user_names_are_refused(browser: Open, name: str) -> None:
    one = browser()
    await one.sign_in("ada")
    response = await one.submit("/users", name=name, role="viewer")
    assert response.status_code == 422
    assert SCRIPT not in response.text


async def test_tokens_are_shown_once_and_stored_as_hashes(browser: Open, context: ConsoleContext) -> None:
    one = browser()
    await one.sign_in("otto")
    response = await one.submit("/account/tokens", name=SCRIPT, role="viewer", days="1")
    found = re.search(r'<code class="secret">(slt_[^<]+)', response.text)
    assert found
    assert SCRIPT not in response.text
    assert escape(SCRIPT) in response.text
    token = found.group(1)
    assert token not in await one.load("/account")
    assert token.encode() not in b"".join(map(str.encode, context.database._connection.iterdump()))
    identity = context.tokens.identity(token)
    assert identity
    assert (identity.name, identity.role, identity.limits.sites) == ("otto", "viewer", {"north"})
    assert (await one.submit("/account/tokens", name="more", role="admin", days="1")).status_code == 422
    assert (await one.submit("/account/tokens", name="more", role="root", days="1")).status_code == 422
    assert (await one.submit("/account/tokens", name="more", role="viewer", days="-1")).status_code == 422


async def test_an_api_token_loses_rights_when_its_owner_does_and_stops_working_when_it_expires(
    browser: Open, context: ConsoleContext, clock: ManualClock
) -> None:
    one = browser()
    await one.sign_in("ada")
    found = re.search(r">(slt_[^<]+)", (await one.submit("/account/tokens", name="t", role="admin", days="1")).text)
    assert found
    program = browser()
    program.headers["Authorization"] = f"Bearer {found.group(1)}"
    assert (await program.get("/users")).status_code == 200
    program.headers["Authorization"] = f"Bearer {found.group(1)}x"
    assert (await program.get("/users")).status_code == 303
    program.headers["Authorization"] = f"Bearer {found.group(1)}"
    context.users.add("deputy", "", context.users.all()[0].role, context.users.all()[0].limits, must_change=False)
    ada = context.users.named("ada")
    assert ada
    await one.submit(f"/users/{ada.id}", role="viewer", sites="north", enabled="on")
    assert (await program.get("/users")).status_code == 403
    assert (await program.get("/account")).status_code == 200
    clock.advance(86_400.0)
    assert (await program.get("/account")).status_code == 303


async def test_a_session_stays_valid_if_a_proxy_adds_http_basic_credentials_to_the_request(browser: Open) -> None:
    one = browser()
    await one.sign_in("vera")
    assert (await one.get("/account", headers={"Authorization": "Basic dmVyYTp4"})).status_code == 200
    assert (await one.get("/account", headers={"Authorization": "Bearer x"})).status_code == 303
    response = await one.post("/sign-out", headers={"Authorization": "Basic dmVyYTp4"})
    assert response.status_code == 403


async def test_the_audit_trail_shows_actions_and_cannot_be_changed(browser: Open, context: ConsoleContext) -> None:
    one = browser("192.0.2.7")
    await one.sign_in("ada", "wrong")
    await one.sign_in(f"{SCRIPT}", "wrong")
    await one.sign_in("ada")
    await one.submit("/users", name="new", role="viewer", sites="north")
    html = await one.load("/audit")
    for text in ("sign_in_failed", "signed_in", "user_added", "192.0.2.7", escape(SCRIPT)):
        assert text in html
    assert SCRIPT not in html
    assert "user_added" not in (await one.load("/audit?user=vera")).partition("<table>")[2]
    for statement in ("DELETE FROM audit", "UPDATE audit SET user = 'x'"):
        with pytest.raises(Exception, match="append-only"):
            context.database.run(statement)


async def test_older_entries_of_the_audit_trail_are_on_further_pages(browser: Open, context: ConsoleContext) -> None:
    one = browser()
    await one.sign_in("ada")
    for number in range(150):
        context.trail.add("tested", "ada", "", "", f"entry-{number}")
    html = await one.load("/audit?action=tested")
    assert "entry-149" in html
    assert "entry-49<" not in html
    older = re.search(r'href="(/audit\?[^"]+)"', html)
    assert older
    assert "entry-49<" in await one.load(older.group(1).replace("&amp;", "&"))


async def test_a_token_cannot_add_another_token(browser: Open, context: ConsoleContext) -> None:
    ada = context.users.named("ada")
    assert ada
    identity = context.sessions.identity(context.sessions.open(ada.id, "", ""))
    assert identity
    program = browser()
    program.headers["Authorization"] = f"Bearer {context.tokens.add(identity, 'short', Role.VIEWER, 1)}"
    response = await program.post("/account/tokens", data={"name": "endless", "role": "viewer", "days": "0"})
    assert response.status_code == 403
    assert [one.name for one in context.tokens.of_user(ada.id)] == ["short"]
