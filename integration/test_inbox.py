"""Held calls in the console, in real Chromium: people decide by keyboard, what happens elsewhere arrives by itself, and
nothing an agent wrote does anything there. What ran is judged by what the upstream saw."""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from gateway import SUPPORT, Agent, Gateway, Person
from parts import Json, Upstream
from visit import SCREENSHOTS, WIDTHS, Visit, asks, console, fetch, is_readable

ONA = Person("ona", roles=["oncall", "approver"], teams=["care"])
BEN = Person("ben", roles=["oncall", "approver"], teams=["care"])
AUD = Person("aud", roles=["auditor"])
PAY = Person("pay", roles=["oncall", "approver"], teams=["payments"])
BILLING, LEAKY, HOSTILE, SCENE = (Agent(f"agent/{name}") for name in ("billing", "leaky", "hostile", "scene"))
MARKUP = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
HIDDEN = "pay\u202egpj.exe\u200b\u200b\u2066\x1b[2J\x1b[31m"
MAIL = "The board of Weber Ltd agreed on Monday to sell the northern plant for 41,250,000 to Castell & Sons, unannounced."
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def gateway(directory: Path, desk: Upstream) -> Iterator[Gateway]:
    """A gateway whose held calls are answered at once, and repeated by their agents."""
    agents, people = [SUPPORT, BILLING, LEAKY, HOSTILE, SCENE], [ONA, BEN, AUD, PAY]
    gateway = Gateway(directory / "inbox", [desk], agents=agents, people=people)
    gateway.prepare().start()
    yield gateway
    gateway.stop()


@pytest.fixture
def ona(browser: Browser, gateway: Gateway) -> Iterator[Visit]:
    """Somebody on call."""
    with Visit(browser, gateway, ONA) as visit:
        yield visit


def decision(answer: Json) -> Json:
    """What the gateway says of a call, or nothing when the upstream replied."""
    told: Json = (answer["result"].get("_meta") or {}).get("dev.holdpoint/decision") or {}
    return told


def held(gateway: Gateway, agent: Agent, desk: Upstream, tool: str, **arguments: str) -> str:
    """A call that is held; its hold."""
    told = decision(asks(gateway, agent, desk, tool, **arguments))
    assert told.get("outcome") == "pending", told
    return str(told["hold"])


def hold(gateway: Gateway, number: str) -> Json:
    """How a hold stands."""
    told: Json = json.loads(fetch(gateway, ONA, f"{console(gateway)}/v1/holds/{number}"))
    return told


def says(gateway: Gateway, person: Person, number: str, verb: str, reason: str) -> Json:
    """What a person says of a hold over the API."""
    body = {"digest": hold(gateway, number)["hold"]["digest"], "reason": reason}
    told: Json = json.loads(fetch(gateway, person, f"{console(gateway)}/v1/holds/{number}/{verb}", "POST", body))
    return told


def refunds(desk: Upstream, order: str) -> int:
    """How often an order was really paid back."""
    return sum(call["params"]["arguments"]["order"] == order for call in desk.calls("pay_refund"))


def test_a_call_is_approved_by_keyboard_and_runs_once(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    held(gateway, SUPPORT, desk, "pay_refund", order="A-1")
    page = ona.goes("/holds")
    expect(page.get_by_role("status")).to_contain_text("waits for people" if page.locator("tbody tr").count() == 1 else "wait for people")
    ona.tabs_to("desk.pay_refund")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("desk.pay_refund")
    for told in ("agent/support", "ana@example.org", "write · 3", "high-consequence", "A-1", "sha256:"):
        expect(page.locator("main")).to_contain_text(told)
    ona.tabs_to("reason")
    page.keyboard.type("order A-1 came back broken")
    ona.tabs_to("Approve this call, once")
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_contain_text("Nothing has run yet")
    expect(page.locator(".history")).to_contain_text("order A-1 came back broken")
    assert refunds(desk, "A-1") == 0, "an approval alone runs nothing"
    # Its client had gone. It comes back with the same call, and the page learns of it by itself.
    assert not decision(asks(gateway, SUPPORT, desk, "pay_refund", order="A-1"))
    assert refunds(desk, "A-1") == 1
    expect(page.locator(".state")).to_contain_text("It ran, once.")
    assert decision(asks(gateway, SUPPORT, desk, "pay_refund", order="A-1"))["outcome"] == "executed"
    assert refunds(desk, "A-1") == 1
    vote = next(record for record in gateway.records("vote") if record["reason"] == "order A-1 came back broken")
    assert (vote["vote"], vote["by"]["id"], vote["seen"]) == ("approve", "spiffe://people.example.org/ona", vote["digest"])


def test_a_call_is_denied_by_keyboard_and_never_runs(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    number = held(gateway, SUPPORT, desk, "pay_refund", order="A-2")
    page = ona.goes(f"/holds/{number}")
    ona.tabs_to("Deny")
    page.keyboard.press("Enter")
    # The browser asks for the reason first.
    assert page.evaluate("() => document.activeElement.name") == "reason"
    assert hold(gateway, number)["hold"]["state"] == "pending"
    page.keyboard.type("not that customer")
    ona.tabs_to("Deny")
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_contain_text("denied")
    expect(page.locator(".history")).to_contain_text("not that customer")
    ona.shoots("hold-denied")
    assert decision(asks(gateway, SUPPORT, desk, "pay_refund", order="A-2"))["outcome"] == "denied"
    assert refunds(desk, "A-2") == 0


def test_a_hold_arrives_by_itself_and_moves_nobody(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    first = held(gateway, BILLING, desk, "pay_refund", order="B-1")
    page = ona.goes("/holds")
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("() => { window.same = true }")
    ona.tabs_to("desk.pay_refund")
    link = page.evaluate("() => document.activeElement.getAttribute('href')")
    second = held(gateway, BILLING, desk, "pay_refund", order="B-2")
    expect(page.locator(f'tbody a[href="/holds/{second}"]')).to_be_visible()
    told = page.evaluate("() => [document.activeElement.getAttribute('href'), window.same, scrollY]")
    assert told == [link, True, 0], "the reader's place is the same, and the page was not loaded again"
    waiting = page.locator("tbody tr").count()
    expect(page.locator("#waiting")).to_have_text(str(waiting))
    expect(page.get_by_role("status")).to_contain_text(f"{waiting} calls wait")
    expect(page).to_have_title(f"({waiting}) Inbox · Holdpoint")
    # One that is decided elsewhere goes, and what the reader is on stays where it is and says so.
    page.locator(f'tbody a[href="/holds/{second}"]').focus()
    for number in (first, second):
        says(gateway, BEN, number, "deny", "elsewhere")
    expect(page.locator(f'tbody a[href="/holds/{first}"]')).to_have_count(0)
    expect(page.locator("tr.gone")).to_contain_text("no longer here")
    assert page.evaluate("() => document.activeElement.getAttribute('href')") == f"/holds/{second}"


def test_the_number_beside_inbox_is_right_on_every_page_and_goes_on_by_itself(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    first = held(gateway, BILLING, desk, "pay_refund", order="N-1")
    page = ona.goes("/")
    expect(page.get_by_role("navigation", name="Console").get_by_role("link").first).to_contain_text("Inbox")
    waiting = page.locator("tbody tr").count()
    for path in ("/agents", "/records", "/breakglass", "/nowhere"):
        expect(ona.goes(path).locator("#waiting")).to_have_text(str(waiting))
    # On the page of one hold it is told of another.
    page = ona.goes(f"/holds/{first}")
    expect(page.locator("#live")).to_have_text("live")
    second = held(gateway, BILLING, desk, "pay_refund", order="N-2")
    expect(page.locator("#waiting")).to_have_text(str(waiting + 1))
    for number in (first, second):
        says(gateway, BEN, number, "deny", "a test")
    expect(page.locator("#waiting")).to_have_text(str(waiting - 1) if waiting > 1 else "")
    assert refunds(desk, "N-1") == refunds(desk, "N-2") == 0


def test_without_a_script_everything_works_by_reload(browser: Browser, gateway: Gateway, desk: Upstream) -> None:
    number = held(gateway, BILLING, desk, "pay_refund", order="B-3")
    with Visit(browser, gateway, ONA, java_script_enabled=False) as visit:
        page = visit.goes("/holds")
        page.locator(f'tbody a[href="/holds/{number}"]').click()
        page.get_by_role("button", name="Approve this call, once").click()
        expect(page.locator(".state")).to_contain_text("Nothing has run yet")
    assert refunds(desk, "B-3") == 0
    asks(gateway, BILLING, desk, "pay_refund", order="B-3")
    assert refunds(desk, "B-3") == 1


def test_what_is_decided_elsewhere_meanwhile_is_told(browser: Browser, ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    number = held(gateway, BILLING, desk, "pay_refund", order="B-4")
    page = ona.goes(f"/holds/{number}")
    expect(page.locator("#live")).to_have_text("live")
    page.locator("#reason").fill("I am still writing")
    with Visit(browser, gateway, BEN, java_script_enabled=False) as late:
        before = late.goes(f"/holds/{number}")
        says(gateway, PAY, number, "deny", "not mine to say")  # another team's: it counts for nothing
        expect(page.locator("#reason")).to_have_value("I am still writing")
        says(gateway, ONA, number, "deny", "the customer called")
        # The page that is open knows at once.
        expect(page.locator(".decide")).to_contain_text("Nobody decides it any more: it is denied.")
        expect(page.locator("#reason")).to_have_count(0)
        # Who comes too late is told what became of it.
        before.get_by_role("button", name="Approve this call, once").click()
        for told in ("Your vote came too late and changed nothing", "ona@example.org", "the customer called"):
            expect(before.get_by_role("alert")).to_contain_text(told)
        late.shoots("hold-too-late")
        late.complaints.clear()
    assert [vote["says"] for vote in hold(gateway, number)["hold"]["votes"]] == ["deny"]
    asks(gateway, BILLING, desk, "pay_refund", order="B-4")
    assert refunds(desk, "B-4") == 0


def test_a_hostile_argument_is_shown_and_does_nothing(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    long = "x" * (1 << 20)
    number = held(gateway, HOSTILE, desk, "pay_refund", order=MARKUP + HIDDEN, note="first line\n\nlast line", blob=long, **{MARKUP: "key"})
    page = ona.goes(f"/holds/{number}")
    call = page.get_by_role("region", name="What would be sent")
    for told in (MARKUP, "U+202E", "U+200B×2", "U+2066", "U+001B", "first line↵", "1,048,576 bytes"):
        expect(call).to_contain_text(told)
    content = page.content()
    assert not any(hidden in content for hidden in "\u202e\u200b\u2066\x1b")
    assert page.locator("main script, main img").count() == 0 and page.locator("details.long[open]").count() == 0
    ona.shoots("hold-hostile")
    fold = page.locator("details.long summary").first
    fold.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.long div.text").first.inner_text() == long, "the whole value is there"
    expect(page).to_have_title("desk.pay_refund · Holdpoint")
    wide, room = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room
    says(gateway, ONA, number, "deny", MARKUP + HIDDEN)
    expect(page.locator(".history")).to_contain_text(MARKUP)
    assert not any(hidden in page.content() for hidden in "\u202e\u200b\u2066\x1b")
    assert not [call for call in desk.calls("pay_refund") if "blob" in call["params"]["arguments"]]


def leaks(gateway: Gateway, agent: Agent, desk: Upstream, number: int = 0) -> str:
    """Something confidential that was read is about to leave; the hold."""
    asks(gateway, agent, desk, "read_inbox")
    return held(gateway, agent, desk, "send_letter", to=f"mallory{number}@outside.test", text=f"{number}: {MAIL}")


def leaves(gateway: Gateway, agent: Agent, desk: Upstream, number: int = 0) -> str:
    """The same once more; what became of it."""
    told = decision(asks(gateway, agent, desk, "send_letter", to=f"mallory{number}@outside.test", text=f"{number}: {MAIL}"))
    return str(told.get("outcome", "allowed"))


def test_where_a_text_came_from_is_drawn_and_the_destination_is_remembered(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    number = leaks(gateway, SCENE, desk)
    page = ona.goes(f"/holds/{number}")
    picture = page.locator("figure.path").first
    for told in ("lineage", "desk.read_inbox", "the same text", "desk.send_letter", "mallory0@outside.test"):
        expect(picture).to_contain_text(told)
    ona.shoots("hold-path")
    page.get_by_role("link", name="What else this run has read and tried").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Run of agent/scene")
    expect(page.locator("figure.path").first).to_contain_text("desk.read_inbox")
    expect(page.locator("main")).to_contain_text("confidential")
    assert "northern plant" not in page.content(), "evidence says how much and from where, never what"
    ona.shoots("run")
    page.locator(f'a[href="/holds/{number}"]').click()
    # Nothing is remembered but by the button that says so.
    page.locator("details.remember summary").click()
    page.get_by_label("For", exact=True).select_option("7d")
    page.get_by_role("button", name="Approve and remember").click()
    expect(page.locator(".state")).to_contain_text("approved")
    told = json.loads(fetch(gateway, ONA, f"{console(gateway)}/v1/endorsements"))["endorsements"]
    assert [(one["destination"], one["hold"], one["state"]) for one in told] == [("mail:mallory0@outside.test", number, "in-force")]
    before = len(desk.calls("send_letter"))
    assert leaves(gateway, SCENE, desk) == "allowed" and len(desk.calls("send_letter")) == before + 1


def test_a_frozen_run_goes_on_when_a_person_says_why(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    for number in range(4):
        leaks(gateway, LEAKY, desk, number)
    assert decision(asks(gateway, LEAKY, desk, "lookup_customer", name="Weber"))["outcome"] == "denied"
    page = ona.goes("/runs?agent=agent/leaky")
    page.get_by_role("row").filter(has_text="frozen").get_by_role("link").first.click()
    expect(page.locator(".state")).to_contain_text("frozen")
    expect(page.locator("figure.path").first).to_contain_text("mallory" if page.locator(".place").count() else "send_letter")
    ona.shoots("run-frozen")
    ona.tabs_to("Let it go on…")
    page.keyboard.press("Enter")
    ona.tabs_to("reason")
    page.keyboard.type("checked with Ana")
    ona.tabs_to("Let it go on")
    page.keyboard.press("Enter")
    expect(page.locator(".state")).not_to_contain_text("frozen")
    assert not decision(asks(gateway, LEAKY, desk, "lookup_customer", name="Weber"))
    orders = [record for record in gateway.records("admin") if record.get("what") == "unfreeze"]
    assert [(order["reason"], order["by"]["email"]) for order in orders] == [("checked with Ana", "ona@example.org")]


def test_who_may_not_decide_sees_why(browser: Browser, gateway: Gateway, desk: Upstream) -> None:
    number = held(gateway, BILLING, desk, "pay_refund", order="B-5")
    with Visit(browser, gateway, AUD) as visit:
        page = visit.goes(f"/holds/{number}")
        expect(page.locator(".decide")).to_contain_text("Policy does not let you decide this call")
        assert page.locator("form").count() == 0
        visit.shoots("hold-not-yours")
    with Visit(browser, gateway, PAY) as visit:
        assert "pay_refund" not in visit.goes("/holds").content()
        expect(visit.goes(f"/holds/{number}").get_by_role("heading", level=1)).to_have_text("Not found")
    assert hold(gateway, number)["hold"]["votes"] == []


def test_a_form_of_another_page_decides_nothing(ona: Visit, gateway: Gateway, desk: Upstream) -> None:
    number = held(gateway, BILLING, desk, "pay_refund", order="B-6")
    page = ona.goes(f"/holds/{number}")
    token = page.locator('input[name="token"]').get_attribute("value") or ""
    digest = page.locator('input[name="digest"]').get_attribute("value") or ""
    path = f"{console(gateway)}/holds/{number}/approve"
    for fields, headers, said in (
        ({"digest": digest, "reason": "x"}, {}, "missing field"),
        ({"token": "AAAA", "digest": digest, "reason": "x"}, {}, "not one of this console"),
        ({"token": token, "digest": digest, "reason": "x"}, {"origin": "https://evil.example"}, "another origin"),
        ({"token": token, "digest": digest, "reason": "x"}, {"sec-fetch-site": "cross-site"}, "another origin"),
        ({"token": token, "digest": "sha256:" + "0" * 64, "reason": "x"}, {}, "The digest is not that of hold"),
    ):
        assert said in posts(gateway, ONA, path, fields, headers), fields
    assert hold(gateway, number)["hold"]["votes"] == []
    asks(gateway, BILLING, desk, "pay_refund", order="B-6")
    assert refunds(desk, "B-6") == 0


def posts(gateway: Gateway, person: Person, url: str, fields: dict[str, str], headers: dict[str, str]) -> str:
    """A form that no page of the console sent; what it is answered."""
    body = urllib.parse.urlencode(fields)
    return fetch(gateway, person, url, "POST", body, **FORM, **headers).decode()


def scenes(gateway: Gateway, desk: Upstream) -> list[str]:
    """What the pages are looked at with: calls that wait, one of each kind."""
    grave = held(gateway, SCENE, desk, "close_account", id="C-1007")
    said = {"order": "A-77", "amount": "1,280.00 EUR", "reason": "the customer says that the parcel arrived empty"}
    plain = held(gateway, SCENE, desk, "pay_refund", **said)
    says(gateway, BEN, grave, "approve", "agreed with the customer on the phone")
    letter = leaks(gateway, SCENE, desk, 9)
    return ["/", "/agents", "/holds?show=approved", "/holds?show=ended", "/holds?show=unclear", "/runs", *(f"/holds/{one}" for one in (grave, plain, letter))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_every_page_of_holds_is_readable(browser: Browser, gateway: Gateway, desk: Upstream, width: str, scheme: str) -> None:
    with Visit(browser, gateway, ONA, color_scheme=scheme, **WIDTHS[width]) as visit:
        for number, path in enumerate(scenes(gateway, desk)):
            page = visit.goes(path)
            visit.shoots(f"inbox-{width}-{scheme}-{number}")
            is_readable(page, path)
        run = page.get_by_role("link", name="What else this run has read and tried").get_attribute("href") or ""
        page = visit.goes(run)
        visit.shoots(f"inbox-{width}-{scheme}-run")
        is_readable(page, run)


def test_where_the_screenshots_of_holds_are(figure: Callable[[str, object], None]) -> None:
    """The last story: what the others looked like."""
    assert len(list(SCREENSHOTS.glob("inbox-*.png"))) >= len(WIDTHS) * 2
    figure("inbox_screenshots", SCREENSHOTS)
