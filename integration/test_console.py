"""The console in real Chromium, with a person's certificate: what people see, by keyboard and on a phone, and that nothing
an agent or an upstream wrote does anything there."""

import datetime
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from gateway import READER, SUPPORT, Agent, Gateway, Person
from parts import HERE, Json, Upstream, until
from visit import SCREENSHOTS, WIDTHS, Visit, asks, console, fetch, is_readable

OLGA = Person("olga", roles=["admin"])
PAY = Person("pay", roles=["approver"], teams=["payments"])
ROAMER = Agent("agent/roamer", groups=["first"])
SHADOWED = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=14)).isoformat()
MARKUP = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
HIDDEN = "pay\u202egpj.exe\u200b\x1b[31m"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PAGES = ["/", "/agents", "/breakglass", "/standing", "/runs", "/agents/agent%2Fsupport", "/records", f"/records?trace={TRACE}", f"/records/{TRACE}", "/tools", "/shadow", "/records?limit=x", "/nowhere"]


@pytest.fixture(scope="module")
def gateway(directory: Path, desk: Upstream, recorder: Upstream) -> Iterator[Gateway]:
    """A gateway that has seen a day: calls of every outcome, one upstream in shadow, one tool that changed its words."""
    gateway = Gateway(directory / "console", [desk, recorder], agents=[SUPPORT, READER, ROAMER], people=[OLGA, PAY])
    gateway.prepare()
    told = gateway.configuration()
    listed, shadowed = told["upstreams"]
    listed |= {"list_every": "1h"}
    shadowed |= {"enforcement": {"mode": "shadow", "until": SHADOWED, "groups": ["first"]}}
    gateway.write("holdpoint.yaml", told)
    gateway.start()
    until("the first list", lambda: tools(gateway)["desk"]["listed"])
    a_day(gateway, desk, recorder)
    gateway.stop()
    (directory / "desk.changed").touch()
    gateway.start()
    until("the changed list", lambda: not all(tool["sound"] for tool in tools(gateway)["desk"]["tools"]))
    yield gateway
    gateway.stop()


def a_day(gateway: Gateway, desk: Upstream, notes: Upstream) -> None:
    """Calls of every outcome."""
    asks(gateway, SUPPORT, desk, "lookup_customer", name="Weber")
    asks(gateway, SUPPORT, desk, "send_letter", to="ana@example.org", text="Hello")
    for name in ("pay_refund", MARKUP):
        answer = asks(gateway, SUPPORT, desk, name, order=MARKUP + HIDDEN)
        assert answer["result"]["isError"], answer
    assert "error" in asks(gateway, SUPPORT, desk, HIDDEN), "a name that hides something is no name"
    refused = asks(gateway, READER, desk, "close_account", trace=TRACE, id="C-1007")
    assert refused["result"]["isError"], refused
    assert not desk.calls("close_account") and not desk.calls("pay_refund"), "a refusal sends nothing"
    for agent, reached in ((ROAMER, True), (SUPPORT, False)):
        before = len(notes.seen())
        fetch(gateway, agent, f"{gateway.url(notes)}/v1/notes/7", method="DELETE")
        assert (len(notes.seen()) > before) == reached, f"{agent.short}: in shadow for one group alone"
    fetch(gateway, SUPPORT, f"{gateway.url(notes)}/v1/notes")


def tools(gateway: Gateway) -> dict[str, Json]:
    """`/v1/tools`, by upstream."""
    told = json.loads(fetch(gateway, OLGA, f"{console(gateway)}/v1/tools"))
    assert "upstreams" in told, told
    return {upstream["name"]: upstream for upstream in told["upstreams"]}


@pytest.fixture
def olga(browser: Browser, gateway: Gateway) -> Iterator[Visit]:
    """An administrator at a desk."""
    with Visit(browser, gateway, OLGA) as visit:
        yield visit


def test_from_the_front_page_to_the_story_of_a_call(olga: Visit) -> None:
    page = olga.goes("/")
    expect(page).to_have_title(re.compile(r"Inbox · Holdpoint$"))
    page.get_by_role("link", name="Agents", exact=True).click()
    expect(page).to_have_title("Agents · Holdpoint")
    agents = page.locator("table")
    expect(agents.get_by_role("row", name="agent/support")).to_contain_text("active")
    olga.shoots("agents")
    page.get_by_role("link", name="agent/support").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("agent/support")
    olga.shoots("agent")
    page.get_by_role("link", name="Records", exact=True).click()
    page.get_by_label("Outcome").select_option("held")
    page.get_by_role("button", name="Find").click()
    rows = page.locator("tbody tr")
    expect(rows.first).to_be_visible()
    for row in rows.all():
        expect(row).to_contain_text("held")
    olga.shoots("records-held")
    page.goto("/records")
    olga.shoots("records")
    row = page.get_by_role("row").filter(has_text="pay_refund")
    row.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("desk.pay_refund")
    expect(page.locator(".verdict")).to_contain_text("spend")
    expect(page.locator("time[datetime]").first).to_be_visible()
    page.locator("details.record summary").first.click()
    expect(page.locator("details.record pre").first).to_contain_text('"effects"')
    olga.shoots("story")


def test_two_clicks_lead_from_a_trace_to_rule_evidence_and_owner(olga: Visit, gateway: Gateway) -> None:
    page = olga.goes("/")
    page.get_by_role("link", name="Records", exact=True).click()
    page.get_by_label("Trace").fill(TRACE)
    page.get_by_role("button", name="Find").click()  # the first click with the trace's id
    page.locator("tbody tr a").first.click()  # the second
    refused = next(record for record in gateway.records("refused") if record["trace_id"] == TRACE)
    verdict = page.locator(".verdict")
    for told in (refused["decision"]["rule"], "delete", "ana@example.org", READER.id):
        expect(verdict).to_contain_text(told)
    olga.shoots("refused")
    # A link with the id of a trace is the same page at once.
    olga.goes(f"/records/{TRACE}")
    expect(page.locator(".verdict")).to_contain_text(refused["decision"]["rule"])


def test_an_agent_is_stopped_and_let_go_on_by_keyboard_alone(olga: Visit, gateway: Gateway, desk: Upstream) -> None:
    page = olga.goes("/agents/agent%2Froamer")
    for verb, reason, outcome in (("Suspend", "it loops", "suspended"), ("Resume", "it is mended", "active")):
        olga.tabs_to(f"{verb}…")
        page.keyboard.press("Enter")
        olga.tabs_to("reason")
        page.keyboard.type(reason)
        if verb == "Suspend":
            olga.shoots("suspending")
        olga.tabs_to(f"{verb} agent/roamer")
        page.keyboard.press("Enter")
        expect(page.locator(".state .badge")).to_have_text(outcome)
        expect(page.locator("main")).to_contain_text(reason)
        before = len(desk.calls("lookup_customer"))
        asks(gateway, ROAMER, desk, "lookup_customer", name="Weber")
        assert (len(desk.calls("lookup_customer")) > before) == (verb == "Resume"), "the order is in force at once"
    orders = [record for record in gateway.records("admin") if record["action"] in ("suspend", "resume")]
    assert [(order["reason"], order["by"]["email"]) for order in orders] == [
        ("it loops", "olga@example.org"),
        ("it is mended", "olga@example.org"),
    ]


def test_what_others_wrote_is_shown_literally_and_does_nothing(olga: Visit, gateway: Gateway) -> None:
    page = olga.goes("/records")
    row = page.get_by_role("row").filter(has_text="<script>").first
    expect(row).to_contain_text("<img src=x onerror=")
    row.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(MARKUP)
    olga.shoots("hostile")
    # A person's reason may be anything: of what does not show itself, the number is shown.
    for verb in ("suspend", "resume"):
        path = f"{console(gateway)}/v1/agents/agent%2Freader/{verb}"
        fetch(gateway, OLGA, path, "POST", {"reason": MARKUP + HIDDEN})
    page = olga.goes("/agents/agent%2Freader")
    for shown in (MARKUP, "U+202E", "U+200B", "U+001B"):
        expect(page.locator("ul.plain").last).to_contain_text(shown)
    assert not any(hidden in page.content() for hidden in "\u202e\u200b\x1b")
    expect(page).to_have_title("agent/reader · Holdpoint")
    assert page.locator("main img, main script").count() == 0
    olga.shoots("hidden-characters")


PUT_BY_MARKUP = "() => document.body.setAttribute('onclick', \"document.title = 'taken'\")"
PUT_BY_SCRIPT = """() => {
  const trusted = trustedTypes.createPolicy('own', {createScript: text => text});
  const script = document.createElement('script');
  script.text = trusted.createScript("document.title = 'taken'");
  document.body.append(script);
}"""
PUT_BY_IMAGE = "() => { document.body.append(Object.assign(new Image(), {src: 'https://outside.test/?all'})) }"


def test_no_script_runs_and_nothing_leaves_whatever_puts_it_there(browser: Browser, gateway: Gateway) -> None:
    with Visit(browser, gateway, OLGA) as visit:
        page = visit.goes("/records")
        with pytest.raises(Exception, match="TrustedScript"):
            page.evaluate(PUT_BY_MARKUP)
        for put, directive in ((PUT_BY_SCRIPT, "script-src"), (PUT_BY_IMAGE, "img-src")):
            visit.complaints.clear()
            page.evaluate(put)
            until("the browser's complaint", lambda: (page.wait_for_timeout(20), visit.complaints)[1])
            assert all(directive in said for said in visit.complaints), visit.complaints
        expect(page).to_have_title("Records · Holdpoint")
        # A page that has a script of the gateway's own makes no script from text at all.
        page = visit.goes("/holds")
        for put in (PUT_BY_MARKUP, PUT_BY_SCRIPT):
            with pytest.raises(Exception, match="Trusted"):
                page.evaluate(put)
        visit.complaints.clear()
        page.evaluate(PUT_BY_IMAGE)
        until("the browser's complaint", lambda: (page.wait_for_timeout(20), visit.complaints)[1])
        assert all("img-src" in said for said in visit.complaints), visit.complaints
        assert "taken" not in page.title()
        visit.complaints.clear()


def test_what_is_in_shadow_is_said_on_every_page(olga: Visit, gateway: Gateway) -> None:
    for path in PAGES:
        banner = olga.goes(path).get_by_role("complementary", name="In shadow")
        for told in ("Not everything is enforced", "notes", "first", SHADOWED, "14 days left"):
            expect(banner).to_contain_text(told)
    passed = {"upstream": "notes", "rule": "high-consequence", "outcome": "held", "calls": 1, "agents": 1}
    assert json.loads(fetch(gateway, OLGA, f"{console(gateway)}/v1/shadow"))["would_be"] == [passed]
    assert json.loads(fetch(gateway, PAY, f"{console(gateway)}/v1/shadow"))["would_be"] == []
    page = olga.goes("/shadow")
    expect(page.get_by_role("row", name="high-consequence")).to_contain_text("would be held")
    page.get_by_role("link", name="Each of them").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody a").first.click()
    expect(page.locator(".verdict .problem")).to_contain_text("It passed because of shadow")
    olga.shoots("shadow-story")
    page = olga.goes("/agents/agent%2Froamer")
    expect(page.get_by_role("heading", name="In shadow for this agent")).to_be_visible()
    page = olga.goes("/agents/agent%2Fsupport")
    expect(page.get_by_role("heading", name="In shadow for this agent")).to_have_count(0)


def test_a_tool_that_changed_its_words_is_seen(olga: Visit, gateway: Gateway) -> None:
    page = olga.goes("/tools")
    row = page.get_by_role("row").filter(has_text="send_letter")
    expect(row).to_contain_text("drifted")
    # A letter's copy, an order to the reader's terminal, and a blank that nobody sees: all three are shown as what they are.
    expect(row.locator("pre")).to_contain_text(r"archive@outside.test first.\u{200b}\u{1b}[2J")
    assert not any(hidden in page.content() for hidden in "\u200b\x1b")
    expect(page.locator("main")).to_contain_text("beta_export")
    olga.shoots("tools")
    told = {tool["name"]: tool for tool in tools(gateway)["desk"]["tools"]}
    assert told["send_letter"]["drift"] == "hidden-text" and not told["send_letter"]["sound"]
    assert told["lookup_customer"]["sound"] and told["lookup_customer"]["held_to"] == "first-sight"
    # What the console shows is what happens: the changed tool is not what was catalogued any more.
    desk = gateway.upstreams[0]
    before = len(desk.calls("send_letter"))
    assert asks(gateway, SUPPORT, desk, "send_letter", to="ana@example.org", text="x")["result"]["isError"]
    assert len(desk.calls("send_letter")) == before


def test_somebody_else_sees_what_is_theirs(browser: Browser, gateway: Gateway) -> None:
    with Visit(browser, gateway, PAY) as visit:
        page = visit.goes("/agents")
        expect(page.locator("main")).to_contain_text("There is no agent that you may see.")
        assert "agent/support" not in page.content()
        page = visit.goes("/agents/agent%2Fsupport")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not permitted")
        visit.shoots("not-permitted")
        assert "roamer" not in visit.goes("/records").content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_every_page_is_readable(browser: Browser, gateway: Gateway, width: str, scheme: str) -> None:
    with Visit(browser, gateway, OLGA, color_scheme=scheme, **WIDTHS[width]) as visit:
        for path in PAGES:
            page = visit.goes(path)
            name = path.strip("/").replace("/", "-").replace("%2F", "-").replace("?", "-").replace(TRACE, "trace") or "front"
            visit.shoots(f"{width}-{scheme}-{name}")
            is_readable(page, path)


def test_where_the_screenshots_are(figure: Callable[[str, object], None]) -> None:
    """The last story: what the others looked like."""
    assert len(list(SCREENSHOTS.glob("*.png"))) > len(PAGES) and HERE not in SCREENSHOTS.parents
    figure("console_screenshots", SCREENSHOTS)
