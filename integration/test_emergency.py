"""What people let go for a while, in real Chromium: an emergency lift is looked at, closed and reviewed, and an approval that
stands is taken back, by keyboard. What ran is judged by what the upstream saw."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from gateway import SUPPORT, Agent, Gateway, Person
from parts import Json, Upstream
from visit import SCREENSHOTS, WIDTHS, Visit, asks, console, fetch, is_readable

ONA = Person("ona", roles=["oncall", "approver"], teams=["care"])
GUS, HAL, IDA = (Person(name, roles=["breakglass"], teams=["care"]) for name in ("gus", "hal", "ida"))
PAY = Person("pay", roles=["oncall", "approver"], teams=["payments"])
BILLING, REPEATER = Agent("agent/billing"), Agent("agent/repeater")
RULE = "hold-high-consequence"
MARKUP = "<script>document.title='taken'</script>"
HIDDEN = "\u202egpj.exe\u200b\x1b[31m"


@pytest.fixture(scope="module")
def gateway(directory: Path, desk: Upstream) -> Iterator[Gateway]:
    """A gateway whose held calls are answered at once."""
    gateway = Gateway(directory / "emergency", [desk], agents=[SUPPORT, BILLING, REPEATER], people=[ONA, GUS, HAL, IDA, PAY])
    gateway.prepare().start()
    yield gateway
    gateway.stop()


@pytest.fixture
def ona(browser: Browser, gateway: Gateway) -> Iterator[Visit]:
    """Somebody on call, who sees every agent of the team and may stop it."""
    with Visit(browser, gateway, ONA) as visit:
        yield visit


def says(gateway: Gateway, person: Person, path: str, method: str = "GET", body: Json | None = None) -> Json:
    """The API, as somebody."""
    told: Json = json.loads(fetch(gateway, person, f"{console(gateway)}{path}", method, body))
    return told


def opens(gateway: Gateway, person: Person, agent: Agent, reason: str, minutes: int = 30) -> str:
    """An emergency lift; its id."""
    wish = {"rules": [RULE], "agents": [agent.id], "for": f"{minutes}m", "reason": reason}
    told = says(gateway, person, "/v1/breakglass", "POST", wish)
    assert told.get("state") == "open", told
    return str(told["id"])


def outcome(answer: Json) -> str:
    """What became of a call."""
    decision = (answer["result"].get("_meta") or {}).get("dev.holdpoint/decision") or {}
    return str(decision.get("outcome", "allowed"))


def ran(desk: Upstream, tool: str, order: str) -> int:
    """How often something was really done for an order."""
    return sum(call["params"]["arguments"]["order"] == order for call in desk.calls(tool))


def test_a_lift_arrives_by_itself_is_closed_by_keyboard_and_reviewed(browser: Browser, ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    page = ona.goes("/breakglass")
    expect(page.get_by_role("status")).to_have_text("Nothing is lifted, and no review is owed.")
    expect(page.locator("main")).to_contain_text("No emergency lift is open: every policy stands for every call.")
    ona.shoots("breakglass-empty")
    elsewhere = ona.context.new_page()
    elsewhere.goto("/")
    page.evaluate("() => { window.same = true }")
    lift = opens(gateway, GUS, BILLING, "vouchers are owed tonight " + MARKUP + HIDDEN)
    assert outcome(asks(gateway, BILLING, desk, "send_voucher", order="E-1")) == "allowed"
    assert outcome(asks(gateway, SUPPORT, desk, "send_voucher", order="E-2")) == "pending", "for nobody else"
    assert (ran(desk, "send_voucher", "E-1"), ran(desk, "send_voucher", "E-2")) == (1, 0)
    # Both pages that are open learn of it, and nothing that was written there does anything.
    shown = page.locator(f'article[id="{lift}"]')
    for told in (RULE, "agent/billing", "gus", "1 call", "send_voucher", MARKUP, "U+202E", "U+200B", "U+001B", "left"):
        expect(shown).to_contain_text(told, timeout=20_000)
    assert page.evaluate("() => window.same") and not any(hidden in page.content() for hidden in "\u202e\u200b\x1b")
    expect(elsewhere.get_by_role("complementary", name="Break-glass")).to_contain_text("vouchers are owed tonight", timeout=20_000)
    elsewhere.get_by_role("link", name="Look at it, or close it").click()
    expect(elsewhere).to_have_url(f"{console(gateway)}/breakglass#{lift}")
    elsewhere.close()
    ona.shoots("breakglass-open")
    shown.get_by_role("link", name="All of them").click()
    expect(page.locator("tbody tr").filter(has_text="send_voucher")).to_have_count(1)
    page.go_back()
    # What is being typed stays while calls go on.
    ona.tabs_to("Close it…")
    page.keyboard.press("Enter")
    ona.tabs_to("reason")
    page.keyboard.type("all vouchers are out")
    assert outcome(asks(gateway, BILLING, desk, "send_voucher", order="E-3")) == "allowed"
    expect(shown).to_contain_text("2 calls", timeout=20_000)
    expect(page.locator(f'article[id="{lift}"] textarea')).to_have_value("all vouchers are out")
    ona.tabs_to("Close it now")
    page.keyboard.press("Enter")
    expect(shown).to_contain_text("review owed")
    expect(shown).to_contain_text("all vouchers are out")
    assert outcome(asks(gateway, BILLING, desk, "send_voucher", order="E-4")) == "pending" and ran(desk, "send_voucher", "E-4") == 0
    ona.shoots("breakglass-owed")
    # Whoever opened it does not review it.
    with Visit(browser, gateway, GUS) as visit:
        own = visit.goes("/breakglass").locator(f'article[id="{lift}"]')
        expect(own).to_contain_text("You opened it: somebody else reviews it.")
        assert own.locator("form").count() == 0
    ona.tabs_to("Review it…")
    page.keyboard.press("Enter")
    ona.tabs_to("reason")
    page.keyboard.type("both vouchers were in the list")
    ona.tabs_to("I have looked at what was done")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Nothing is lifted, and no review is owed.")
    row = page.locator("tbody tr").filter(has_text="both vouchers were in the list")
    for told in ("gus", RULE, "agent/billing", "closed", "ona"):
        expect(row).to_contain_text(told)
    ona.shoots("breakglass-history")
    assert ona.goes("/agents").get_by_role("alert").count() == 0, "and the banner is gone"
    done = [(record["what"], record["by"]["id"].rsplit("/", 1)[-1]) for record in gateway.records("breakglass")]
    assert done == [("opened", "gus"), ("closed", "ona"), ("reviewed", "ona")]


def test_another_team_sees_that_something_is_lifted_and_neither_calls_nor_a_form(browser: Browser, gateway: Gateway, desk: Upstream) -> None:
    lift = opens(gateway, HAL, BILLING, "the second night")
    assert outcome(asks(gateway, BILLING, desk, "send_voucher", order="E-5")) == "allowed"
    with Visit(browser, gateway, PAY) as visit:
        shown = visit.goes("/breakglass").locator(f'article[id="{lift}"]')
        for told in ("the second night", "No call that you may see"):
            expect(shown).to_contain_text(told)
        assert shown.locator("form").count() == 0 and "send_voucher" not in visit.page.content()
    assert says(gateway, ONA, f"/v1/breakglass/{lift}", "DELETE", {"reason": "a test"})["state"] == "ended"


def stands(gateway: Gateway, desk: Upstream, order: str, reason: str) -> None:
    """An approval that stands for five executions."""
    answer = asks(gateway, REPEATER, desk, "pay_refund", order=order)
    number = answer["result"]["_meta"]["dev.holdpoint/decision"]["hold"]
    digest = says(gateway, ONA, f"/v1/holds/{number}")["hold"]["digest"]
    say = {"digest": digest, "reason": reason, "standing": {"for": "30m", "times": 5}}
    assert says(gateway, ONA, f"/v1/holds/{number}/approve", "POST", say)["state"] == "approved"


def test_an_approval_that_stands_is_watched_and_taken_back_by_keyboard(browser: Browser, ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    page = ona.goes("/")
    page.get_by_role("link", name="Standing approvals").click()
    expect(page.get_by_role("status")).to_have_text("No approval stands for more than one execution.")
    ona.shoots("standing-empty")
    stands(gateway, desk, "S-1", "five parcels of one order " + MARKUP + HIDDEN)
    row = page.locator('[data-list="stand"] tr')
    for told in ("desk.pay_refund", "agent/repeater", "0 of 5", "ona", MARKUP, "U+202E"):
        expect(row).to_contain_text(told, timeout=20_000)
    ona.tabs_to("Take it back…")
    page.keyboard.press("Enter")
    ona.tabs_to("reason")
    page.keyboard.type("no more of that")
    for count in (1, 2):
        assert outcome(asks(gateway, REPEATER, desk, "pay_refund", order="S-1")) == "allowed"
        expect(row).to_contain_text(f"{count} of 5", timeout=20_000)
    expect(page.locator('[data-list="stand"] textarea')).to_have_value("no more of that")
    ona.shoots("standing")
    with Visit(browser, gateway, PAY) as visit:
        assert "pay_refund" not in visit.goes("/standing").content()
    ona.tabs_to("Take it back")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("No approval stands for more than one execution.")
    over = page.locator('[data-list="over"] tr')
    for told in ("2 of 5", "revoked", "no more of that"):
        expect(over).to_contain_text(told)
    assert outcome(asks(gateway, REPEATER, desk, "pay_refund", order="S-1")) == "executed" and ran(desk, "pay_refund", "S-1") == 2


@pytest.fixture(scope="module")
def night(gateway: Gateway, desk: Upstream) -> None:
    """What the pages are looked at with: one lift that is open, one whose review is owed, one of before; one approval that stands."""
    owed = opens(gateway, IDA, BILLING, "the provider asks for the vouchers of Monday by midnight, and nobody who approves them answers")
    for order in range(7):
        asks(gateway, BILLING, desk, "send_voucher", order=f"M-{order}")
    says(gateway, ONA, f"/v1/breakglass/{owed}", "DELETE", {"reason": "the list is done"})
    opens(gateway, GUS, SUPPORT, "customers wait for vouchers", minutes=3)
    asks(gateway, SUPPORT, desk, "send_voucher", order="V-1")
    stands(gateway, desk, "S-2", "the nightly order of the shop")
    asks(gateway, REPEATER, desk, "pay_refund", order="S-2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_every_page_of_what_is_let_go_is_readable(browser: Browser, gateway: Gateway, night: None, width: str, scheme: str) -> None:
    with Visit(browser, gateway, ONA, color_scheme=scheme, **WIDTHS[width]) as visit:
        for path in ("/breakglass", "/standing"):
            page = visit.goes(path)
            visit.shoots(f"emergency-{width}-{scheme}-{path.strip('/')}")
            is_readable(page, path)
            for fold in page.locator("details.order summary").all():
                fold.click()
            visit.shoots(f"emergency-{width}-{scheme}-{path.strip('/')}-forms")
            is_readable(page, path)


def test_where_the_screenshots_of_emergencies_are(figure: Callable[[str, object], None]) -> None:
    """The last story: what the others looked like."""
    assert len(list(SCREENSHOTS.glob("emergency-*.png"))) >= len(WIDTHS) * 2
    figure("emergency_screenshots", SCREENSHOTS)
