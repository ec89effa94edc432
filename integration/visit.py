"""Somebody in front of the console, in real Chromium and with a certificate; and agents that call meanwhile."""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from gateway import Agent, Gateway, Person
from parts import CACHE, CACHE_ROOT, Json, Upstream

CHROMIUM = "/usr/bin/chromium"
DESKTOP, PHONE = {"width": 1280, "height": 480}, {"width": 390, "height": 844}
WIDTHS = {"desktop": {"viewport": DESKTOP}, "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True}}
SCREENSHOTS = Path(os.environ.get("HOLDPOINT_SCREENSHOTS", str(CACHE_ROOT / "screenshots")))


def fetch(gateway: Gateway, who: Agent | Person, url: str, method: str = "GET", body: Json | str | None = None, **headers: str) -> bytes:
    """One request with somebody's certificate, whatever it is answered."""
    name = who.name if isinstance(who, Person) else who.short
    context = ssl.create_default_context(cafile=str(gateway.pki / "example.org.pem"))
    context.load_cert_chain(gateway.pki / f"{name}.pem", gateway.pki / f"{name}-key.pem")
    data = (body if isinstance(body, str) else json.dumps(body)).encode() if body is not None else None
    if data is not None:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as reply:  # noqa: S310
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        return error.read()


def asks(gateway: Gateway, agent: Agent, upstream: Upstream, tool: str, trace: str | None = None, **arguments: str) -> Json:
    """A tool call, as an SDK of 2025 would send it."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"mcp-protocol-version": "2025-11-25"}
    if trace:
        headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
    answer: Json = json.loads(fetch(gateway, agent, gateway.url(upstream), "POST", message, **headers))
    return answer


def console(gateway: Gateway) -> str:
    """Where people go."""
    return f"https://localhost:{gateway.admin}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window. Without it the test fails."""
    with sync_playwright() as playwright:
        root = os.geteuid() == 0
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if root else [])
        yield running
        running.close()


class Visit:
    """Somebody in front of the console. Whatever the browser complains about fails the test."""

    def __init__(self, browser: Browser, gateway: Gateway, person: Person, **options: object) -> None:
        files = {"certPath": gateway.pki / f"{person.name}.pem", "keyPath": gateway.pki / f"{person.name}-key.pem"}
        self.base, self.complaints = console(gateway), list[str]()
        self.context: BrowserContext = browser.new_context(
            base_url=self.base,
            client_certificates=[{"origin": self.base, **files}],
            ignore_https_errors=True,
            **{"viewport": DESKTOP, **options},  # type: ignore[arg-type]
        )
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.complaints == []

    def goes(self, path: str) -> Page:
        """Opens a page; one that is not there is a complaint of the browser that is taken back."""
        reply = self.page.goto(path)
        assert reply is not None
        if reply.status >= 400:
            self.complaints = [said for said in self.complaints if "Failed to load resource" not in said]
        return self.page

    def shoots(self, name: str) -> None:
        """Keeps what it looks like."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def tabs_to(self, text: str) -> None:
        """Goes on with the Tab key until what has the focus says this; where the focus is must be seen."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            told = self.page.evaluate(
                "() => { const at = document.activeElement, style = getComputedStyle(at);"
                " return [at.innerText || at.name || at.getAttribute('aria-label') || '', style.outlineStyle] }"
            )
            assert told[1] != "none", f"the focus on {told[0]!r} cannot be seen"
            if text in told[0]:
                return
        raise AssertionError(f"no Tab leads to {text!r}")


def is_readable(page: Page, path: str) -> None:
    """axe-core finds nothing: names, labels, headings, tables, contrast. And nothing scrolls sideways."""
    axe = (CACHE / "node/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    wide, room = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room, f"{path}: {wide} px in {room}"
    page.evaluate(axe)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    told = [f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}" for one in found]
    assert told == [], f"{path}: {told}"
