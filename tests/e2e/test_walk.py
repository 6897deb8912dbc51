"""A person's walk through the console in a real browser, on the stack of the demo."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from ingest.runtime.clock import Deadline
from tests.chromium import launch_options

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(400)]
PATIENCE_MS = 120_000
"""Time limit of one step. A step takes seconds unless the machine runs many other processes."""
PASSWORD = "a long pass phrase"
FIRST_SIGN_IN = re.compile(r"console: (\S+).*one-time password (\S+)", re.DOTALL)
"""The demo's lines with the console's address and the first password."""
DESK, PHONE = ViewportSize(width=1400, height=900), ViewportSize(width=390, height=844)


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}health").status_code == 200
    return False


@pytest.fixture
def demo(kafka: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Run the demo, and yield the address of its console and the one-time password of the user admin."""
    launch_options()  # without a browser, the test is skipped before the demo starts
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE")}
    env |= {"SIGHTLINE_KAFKA": kafka, "COLUMNS": "200"}
    folder, output = tmp_path, tmp_path / "demo.log"
    with output.open("w") as file:
        command = [sys.executable, "-m", "deploy.cli.app", "demo", "--seconds=600"]
        stack = psutil.Popen(command, cwd=folder, env=env, stdout=file, stderr=file)
    try:
        while not (found := FIRST_SIGN_IN.search(output.read_text())) or not answers(found[1]):
            assert stack.poll() is None, output.read_text()
            time.sleep(0.2)
        yield found[1], found[2]
    finally:
        services = stack.children(recursive=True)
        for process in (stack, *services):  # the supervisor first, so that it starts no service again
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        stack.wait()
        psutil.wait_procs(services, timeout=10.0)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Yield a browser without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(**launch_options())
        yield started
        started.close()


def drag(page: Page, handle: int, x: float, y: float) -> None:
    """Drag a corner of the selected shape to a place on the picture, in shares of its width and height."""
    area = page.locator("svg.shapes").bounding_box()
    corner = page.locator(".handle:not(.between)").nth(handle).bounding_box()
    assert area is not None
    assert corner is not None
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * x, area["y"] + area["height"] * y, steps=3)
    page.mouse.up()


def sign_in(page: Page, address: str, one_time: str) -> None:
    """Sign in for the first time, which leads to a password of one's own and then to the wall."""
    page.goto(address)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(one_time)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Present password").fill(one_time)
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password again").fill(PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    expect(page).to_have_url(f"{address}wall", timeout=PATIENCE_MS)


def draw_and_save_a_line(page: Page, address: str) -> None:
    """Draw the line road-line-2, try it until a vehicle of the stored results has crossed it, and save it."""
    page.goto(f"{address}editor/road")
    expect(page.locator(".drawing img")).to_be_visible(timeout=PATIENCE_MS)
    page.locator("#add").select_option("line")
    page.get_by_role("button", name="Add", exact=True).click()
    drag(page, 0, 0.4, 0.98)
    drag(page, 1, 0.4, 0.02)
    deadline = Deadline.after(PATIENCE_MS / 1000)
    while not page.locator("#report figure img").count():
        assert not deadline.passed, "no event in the trial"
        page.get_by_role("button", name="Try", exact=True).click()
        expect(page.locator("#report h3", has_text="road-line-2:")).to_be_visible(timeout=PATIENCE_MS)
        page.wait_for_timeout(1000)
    page.get_by_label("Comment").fill("a second line")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Services follow the change")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("td", has_text="rule/road-line-2")).to_be_visible(timeout=PATIENCE_MS)


def open_the_first_crossing(page: Page, address: str) -> None:
    """Wait for the first crossing of the new line, open its page, and wait for its picture and its receipt."""
    deadline = Deadline.after(PATIENCE_MS / 1000)
    crossed = page.locator("li.event", has_text="crossed road-line-2").first
    while not crossed.count():
        assert not deadline.passed, "no crossing of the new line"
        page.goto(f"{address}events?rule=road-line-2")
        page.wait_for_timeout(500)
    crossed.get_by_role("link").first.click()
    expect(page.locator(".framed img")).to_be_visible(timeout=PATIENCE_MS)
    while not page.locator("td", has_text="delivered").count():
        assert not deadline.passed, "no receipt of the alert"
        page.wait_for_timeout(500)
        page.reload()


def acknowledge_the_incident(page: Page, address: str) -> None:
    """Acknowledge the incident of the road."""
    page.goto(f"{address}incidents?place=road")
    page.locator("tbody a", has_text="road-line").first.click()
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("dd", has_text="admin,")).to_be_visible(timeout=PATIENCE_MS)


def check_the_ledger(page: Page, address: str) -> None:
    """Wait until the ledger is computed, and expect that it balances."""
    page.goto(f"{address}ledger")
    expect(page.locator("tr.total .badge.good")).to_be_visible(timeout=PATIENCE_MS)


def too_wide_pages(phone: Page, address: str) -> list[str]:
    """Return the pages that are wider than the screen."""
    found = []
    for path in (
        "wall",
        "incidents",
        "events",
        "numbers",
        "ledger",
        "system",
        "editor/yard",
        "labels",
        "users",
        "audit",
        "account",
    ):
        phone.goto(address + path)
        if phone.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append(path)
    return found


def test_a_person_signs_in_draws_a_line_tries_and_saves_it_and_acknowledges_its_incident(
    demo: tuple[str, str], browser: Browser
) -> None:
    address, one_time = demo
    context = browser.new_context(viewport=DESK)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)

    sign_in(page, address, one_time)
    for camera in ("conveyor", "road", "yard"):  # the wall shows a live picture of each camera
        tile = page.locator("figure", has=page.get_by_role("link", name=camera, exact=True))
        expect(tile.locator(".blank")).to_be_hidden(timeout=PATIENCE_MS)
    draw_and_save_a_line(page, address)
    open_the_first_crossing(page, address)
    acknowledge_the_incident(page, address)
    check_the_ledger(page, address)

    dark = browser.new_context(
        viewport=PHONE, color_scheme="dark", is_mobile=True, storage_state=context.storage_state()
    )
    dark.set_default_timeout(PATIENCE_MS)
    phone = dark.new_page()
    assert too_wide_pages(phone, address) == []
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 25)"
    assert problems == []
