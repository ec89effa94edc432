"""People who log in at a real OpenID provider, in real Chromium, without a certificate: to see, to decide, and by a token on
the command line."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from gateway import SUPPORT, Gateway, Person, binary
from parts import CACHE, HERE, Json, Process, Upstream, free_port, until
from visit import DESKTOP, asks, fetch

FRESH_SECONDS = 30
AUDIENCE = "https://holdpoint.example.org/api"
CLIENT, SECRET = "holdpoint", "a secret of tests: +%&"
# Only the first is among the people by way of the provider.
ONA, OLGA = Person("ona", roles=["approver", "oncall"], teams=["care"]), Person("olga", roles=["admin"])


@pytest.fixture(scope="module")
def gateway(directory: Path, desk: Upstream) -> Iterator[Gateway]:
    """A gateway that lets people in by the provider too."""
    gateway = Gateway(directory / "oidc", [desk], agents=[SUPPORT], people=[ONA, OLGA])
    issuer = f"http://127.0.0.1:{free_port()}"
    gateway.prepare()
    (gateway.directory / "client-secret").write_text(SECRET + "\n", encoding="utf-8")
    told = gateway.configuration()
    told["oidc"] = {
        "issuer": issuer,
        "client_id": CLIENT,
        "client_secret_file": "client-secret",
        "redirect": f"https://localhost:{gateway.admin}",
        "fresh": f"{FRESH_SECONDS}s",
        "audience": AUDIENCE,
    }
    gateway.write("holdpoint.yaml", told)
    gateway.write("people.yaml", [ONA.entry() | {"oidc": {"iss": issuer, "sub": "u-ona"}}, OLGA.entry()])
    provider = provides(gateway, issuer)
    gateway.start()
    yield gateway
    gateway.stop()
    provider.stop()


def provides(gateway: Gateway, issuer: str) -> Process:
    """The real provider."""
    port = int(issuer.rsplit(":", 1)[1])
    told = {"port": port, "console": console(gateway), "client_id": CLIENT, "client_secret": SECRET, "audience": AUDIENCE}
    command = ["node", str(HERE / "oidc/provider.mjs"), json.dumps(told)]
    modules = str(CACHE / "oidc")
    return Process.start("oidc-provider", command, gateway.directory / "provider.log", OIDC_MODULES=modules).wait_port(port)


def console(gateway: Gateway) -> str:
    """Where people go."""
    return f"https://localhost:{gateway.admin}"


def issuer(gateway: Gateway) -> str:
    """The provider."""
    text = (gateway.directory / "people.yaml").read_text(encoding="utf-8")
    return next(line.split("iss:")[1].strip() for line in text.splitlines() if "iss:" in line)


@pytest.fixture
def context(browser: Browser, gateway: Gateway) -> Iterator[BrowserContext]:
    """A browser without a certificate."""
    context = browser.new_context(base_url=console(gateway), ignore_https_errors=True, viewport=DESKTOP)
    # The provider's own pages ask for a font of another site.
    context.route("https://fonts.googleapis.com/**", lambda route: route.abort())
    yield context
    context.close()


def logs_in(page: Page, name: str) -> None:
    """Fills in what the provider asks."""
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill("x")
    page.get_by_role("button", name="Sign-in").click()


def holds(gateway: Gateway, desk: Upstream) -> None:
    """A call that waits for people."""
    answer = asks(gateway, SUPPORT, desk, "close_account", id="C-1007")
    assert answer["result"]["isError"], answer
    assert not desk.calls("close_account"), "a held call sends nothing"


def pending(context: BrowserContext) -> Json:
    """The call that waits, as the session sees it."""
    told = context.request.get("/v1/holds?state=pending")
    assert told.ok, told.text()
    hold: Json = told.json()["holds"][0]
    return hold


def test_somebody_logs_in_and_comes_back_and_a_stale_login_is_asked_again(
    context: BrowserContext, gateway: Gateway, desk: Upstream
) -> None:
    page = context.new_page()
    page.goto("/records?agent=agent%2Fsupport")
    assert page.url.startswith(issuer(gateway)), page.url
    logs_in(page, "u-ona")
    page.wait_for_url("**/records?agent=agent%2Fsupport")
    expect(page.locator(".who")).to_contain_text("ona@example.org")
    cookies = {cookie["name"]: cookie for cookie in context.cookies(console(gateway))}
    session = cookies["__Host-holdpoint-session"]
    assert (session["sameSite"], session["httpOnly"], session["secure"]) == ("Strict", True, True)
    assert "__Host-holdpoint-login" not in cookies
    # A link from elsewhere finds whoever is logged in.
    page.goto("about:blank")
    page.goto(f"{issuer(gateway)}/nowhere")
    page.evaluate("where => { const a = document.createElement('a'); a.href = where; a.textContent = 'x'; document.body.append(a); a.click() }", f"{console(gateway)}/tools")
    page.wait_for_url("**/tools")
    expect(page.locator(".who")).to_contain_text("ona@example.org")
    holds(gateway, desk)
    hold = pending(context)

    def is_stale() -> bool:
        page.goto("/")
        return page.get_by_role("link", name="Log in again to decide").is_visible()

    until("the login to be too old", is_stale, seconds=FRESH_SECONDS * 3, pause=1)
    say = {"digest": hold["digest"], "reason": "it was asked for"}
    path, own = f"/v1/holds/{hold['id']}/approve", {"origin": console(gateway)}
    refused = context.request.post(path, data=say, headers=own)
    assert refused.status == 401 and "insufficient_user_authentication" in refused.headers["www-authenticate"]
    # A form that decides leads to the provider, which asks again although it remembers, and back to the page.
    page.goto("/agents/agent%2Fsupport")
    page.get_by_text("Suspend…").click()
    page.get_by_label("Reason").fill("it loops")
    page.get_by_role("button", name="Suspend agent/support").click()
    expect(page.locator(".state .badge")).to_have_text("suspended")
    page.get_by_text("Resume…").click()
    page.get_by_label("Reason").fill("it is mended")
    page.get_by_role("button", name="Resume agent/support").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in again")
    page.get_by_role("link", name="Log in again").click()
    logs_in(page, "u-ona")
    page.wait_for_url("**/agents/spiffe*")
    expect(page.locator(".state .badge")).to_have_text("suspended")
    page.get_by_text("Resume…").click()
    page.get_by_label("Reason").fill("it is mended")
    page.get_by_role("button", name="Resume agent/support").click()
    expect(page.locator(".state .badge")).to_have_text("active")
    elsewhere = context.request.post(path, data=say, headers={"origin": "https://evil.example"})
    assert elsewhere.status == 403 and not desk.calls("close_account")
    voted = context.request.post(path, data=say, headers=own)
    assert voted.ok and voted.json()["votes"][0]["email"] == "ona@example.org", voted.text()
    assert not desk.calls("close_account")
    # Two must approve: the other one comes with a certificate.
    approved = json.loads(fetch(gateway, OLGA, f"{console(gateway)}{path}", "POST", say))
    assert approved["state"] == "approved", approved
    answer = asks(gateway, SUPPORT, desk, "close_account", id="C-1007")
    assert not answer["result"].get("isError"), answer
    assert len(desk.calls("close_account")) == 1
    ona, olga = (json.dumps(vote) for vote in gateway.records("vote"))
    assert f"oidc {issuer(gateway)} auth_time=" in ona and "ona@example.org" in ona and "mtls " in olga
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are logged out")
    assert context.request.get("/v1/agents").status == 401


def test_whoever_logged_in_approves_on_the_holds_page_after_a_fresh_login(context: BrowserContext, gateway: Gateway, desk: Upstream) -> None:
    page = context.new_page()
    answer = asks(gateway, SUPPORT, desk, "pay_refund", order="O-1")
    number = answer["result"]["_meta"]["dev.holdpoint/decision"]["hold"]
    # A notification links to the hold: the login comes between, and leads to it.
    page.goto(f"/holds/{number}")
    assert page.url.startswith(issuer(gateway)), page.url
    logs_in(page, "u-ona")
    page.wait_for_url(f"**/holds/{number}")
    expect(page.locator(".state")).to_contain_text("Nothing has run")

    def is_stale() -> bool:
        page.goto(f"/holds/{number}")
        return page.get_by_role("link", name="Log in again to decide").is_visible()

    until("the login to be too old", is_stale, seconds=FRESH_SECONDS * 3, pause=1)
    page.get_by_label("Reason").fill("the parcel came back empty")
    page.get_by_role("button", name="Approve this call, once").click()
    # The provider asks anew, and coming back decides nothing.
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in again")
    page.get_by_role("link", name="Log in again").click()
    logs_in(page, "u-ona")
    page.wait_for_url(f"**/holds/{number}")
    expect(page.locator(".needs")).to_contain_text("0 of 1")
    assert not refunds(desk)
    page.get_by_label("Reason").fill("the parcel came back empty")
    page.get_by_role("button", name="Approve this call, once").click()
    expect(page.locator(".state")).to_contain_text("Nothing has run yet")
    expect(page.locator(".history")).to_contain_text("approved by ona@example.org")
    assert not refunds(desk), "an approval alone runs nothing"
    answer = asks(gateway, SUPPORT, desk, "pay_refund", order="O-1")
    assert not answer["result"].get("isError") and refunds(desk) == ["O-1"], answer
    expect(page.locator(".state")).to_contain_text("It ran, once.")
    [vote] = [record for record in gateway.records("vote") if record["hold"] == number]
    assert vote["by"]["evidence"].startswith(f"oidc {issuer(gateway)} auth_time="), vote
    assert (vote["by"]["email"], vote["reason"], vote["seen"]) == ("ona@example.org", "the parcel came back empty", vote["digest"])


def refunds(desk: Upstream) -> list[str]:
    """The orders that were really paid back."""
    return [call["params"]["arguments"]["order"] for call in desk.calls("pay_refund")]


def test_whoever_is_not_among_the_people_gets_in_nowhere(context: BrowserContext, gateway: Gateway) -> None:
    page = context.new_page()
    page.goto("/")
    logs_in(page, "u-somebody")
    expect(page.get_by_role("alert")).to_contain_text("is not among the people of this gateway")
    assert context.request.get("/v1/agents").status == 401
    refused = [record for record in gateway.records("admin") if record.get("reason") == "unknown-person"]
    assert refused[-1]["by"]["oidc"]["subject"] == "u-somebody"


def test_a_token_of_the_provider_does_on_the_command_line(context: BrowserContext, gateway: Gateway) -> None:
    tokens = native(context.new_page(), gateway)
    listed = command(gateway, tokens["access_token"], "agents", "list", "--json")
    assert listed.returncode == 0 and SUPPORT.id in listed.stdout, listed.stdout + listed.stderr
    for order in ("suspend", "resume"):
        done = command(gateway, tokens["access_token"], "agents", order, "agent/support", "--reason", "a token")
        assert done.returncode == 0, done.stdout + done.stderr
    # The ID token of the same login is for its client, and no access token.
    refused = command(gateway, tokens["id_token"], "agents", "list")
    assert refused.returncode == 1 and SUPPORT.id not in refused.stdout, refused.stdout + refused.stderr


def native(page: Page, gateway: Gateway) -> Json:
    """What a program of the person's own gets by a browser [RFC 8252]."""
    verifier, back = secrets.token_urlsafe(32), f"http://127.0.0.1:{free_port()}/back"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": "cli",
        "response_type": "code",
        "redirect_uri": back,
        "scope": "openid console",
        "resource": AUDIENCE,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    page.goto(f"{issuer(gateway)}/auth?{urllib.parse.urlencode(asked)}")
    with page.expect_request(lambda request: request.url.startswith(back)) as called:
        logs_in(page, "u-ona")
        # A program on the person's machine could be anybody's: the provider always asks whether they meant it.
        page.get_by_role("button", name="Continue").click()
    answered = urllib.parse.parse_qs(urllib.parse.urlsplit(called.value.url).query)
    form = {
        "grant_type": "authorization_code",
        "client_id": "cli",
        "code": answered["code"][0],
        "redirect_uri": back,
        "code_verifier": verifier,
        "resource": AUDIENCE,
    }
    with urllib.request.urlopen(f"{issuer(gateway)}/token", urllib.parse.urlencode(form).encode(), timeout=30) as reply:  # noqa: S310
        tokens: Json = json.loads(reply.read())
    return tokens


def command(gateway: Gateway, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the binary, by a token in a file and without a certificate."""
    file = gateway.directory / "token"
    file.write_text(token, encoding="utf-8")
    settings = {
        "HOLDPOINT_ADDR": console(gateway),
        "HOLDPOINT_TOKEN_FILE": str(file),
        "HOLDPOINT_CACERT": str(gateway.pki / "example.org.pem"),
    }
    environment = {**os.environ, **settings}
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment)
