"""A freight company's services, which no suite of the package has: customers over HTTP, and tickets, a wiki, payments and
the web over MCP. Each session gets a state of its own, read from `state.yaml`, with text injected where it says so."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
STRING: Json = {"type": "string"}


class Missing(Exception):
    """There is nothing of that name."""


@cache
def state() -> Json:
    """The services' state before anything happened."""
    read: Json = yaml.safe_load((HERE / "state.yaml").read_text(encoding="utf-8"))
    return read


class Services:
    """The state of one session and what can be done with it."""

    def __init__(self, vector: list[str], text: str) -> None:
        """A fresh state, in which an outsider added a text to what is at a path, such as `[tickets, "101", text]`."""
        self.state = copy.deepcopy(state())
        if vector:
            *folders, last = vector
            place = self.state
            for folder in folders:
                place = place[folder]
            place[last] = f"{place[last]}\n\n{text}"

    def find(self, kind: str, key: str) -> Any:
        """One record by its key."""
        if key not in self.state[kind]:
            raise Missing(f"no {key} in {kind}")
        return self.state[kind][key]

    def search(self, kind: str, query: str) -> list[Json]:
        """The records in which any text has these words."""
        words = query.lower().split()
        return [each for each in self.state[kind].values() if all(word in str(each).lower() for word in words)]

    def done(self, kind: str, **what: object) -> str:
        """Keeps what was done."""
        self.state["done"].append({"kind": kind, **what})
        return f"{kind} done"

    # === tickets ===

    def list_tickets(self, status: str) -> list[Json]:
        """Tickets with a status."""
        return [each for each in self.state["tickets"].values() if each["status"] == status]

    def get_ticket(self, id: str) -> Json:
        """One ticket."""
        found: Json = self.find("tickets", id)
        return found

    def comment_ticket(self, id: str, text: str) -> str:
        """A comment that only colleagues see."""
        self.find("tickets", id)["comments"].append(text)
        return "comment kept"

    def assign_ticket(self, id: str, to: str) -> str:
        """Gives a ticket to a colleague."""
        self.find("tickets", id)["assignee"] = to
        return "assigned"

    def send_reply(self, ticket: str, to: str, text: str) -> str:
        """Mail about a ticket."""
        self.find("tickets", ticket)
        return self.done("mail", to=to, text=text)

    # === wiki ===

    def search_pages(self, query: str) -> list[Json]:
        """Pages with these words."""
        return self.search("pages", query)

    def get_page(self, id: str) -> Json:
        """One page."""
        found: Json = self.find("pages", id)
        return found

    def get_credentials(self, system: str) -> Json:
        """The credentials of a system."""
        found: Json = self.find("credentials", system)
        return found

    def create_page(self, title: str, text: str) -> Json:
        """A new page."""
        id = f"p{len(self.state['pages']) + 1}"
        self.state["pages"][id] = {"id": id, "title": title, "text": text, "author": "desk@harbourfreight.example"}
        return {"id": id}

    def publish_page(self, id: str, site: str) -> str:
        """Puts a page on a site."""
        return self.done("publish", page=self.find("pages", id)["title"], site=site)

    # === payments ===

    def list_payees(self) -> list[Json]:
        """Whom the company has approved to pay."""
        return list(self.state["payees"].values())

    def list_invoices(self) -> list[Json]:
        """What suppliers have sent."""
        return list(self.state["invoices"].values())

    def pay(self, iban: str, amount: float, reference: str) -> str:
        """Pays."""
        return self.done("payment", iban=iban, amount=amount, reference=reference)

    # === the web ===

    def fetch(self, url: str) -> str:
        """A page, or what most of the web answers."""
        return str(self.state["web"].get(url.split("?")[0], "Nothing to see here."))

    def submit_form(self, url: str, fields: Json) -> str:
        """Fills in a form."""
        return self.done("form", url=url, fields=fields)

    # === customers, over HTTP ===

    def customer(self, id: str) -> Json:
        """One customer."""
        found: Json = self.find("customers", id)
        return found

    def customers(self, query: str) -> Json:
        """Customers with these words."""
        return {"items": self.search("customers", query)}

    def update_customer(self, id: str, changes: Json) -> Json:
        """Changes what is given."""
        self.find("customers", id).update(changes)
        return self.customer(id)

    def message_customer(self, id: str, to: str, text: str) -> str:
        """A message through the customer database."""
        self.find("customers", id)
        return self.done("message", to=to, text=text)


# The tools of each MCP server: what they take.
TOOLS: dict[str, dict[str, Json]] = {
    "tickets": {
        "list_tickets": {"status": STRING},
        "get_ticket": {"id": STRING},
        "comment_ticket": {"id": STRING, "text": STRING},
        "assign_ticket": {"id": STRING, "to": STRING},
        "send_reply": {"ticket": STRING, "to": STRING, "text": STRING},
    },
    "wiki": {
        "search_pages": {"query": STRING},
        "get_page": {"id": STRING},
        "get_credentials": {"system": STRING},
        "create_page": {"title": STRING, "text": STRING},
        "publish_page": {"id": STRING, "site": STRING},
    },
    "payments": {
        "list_payees": {},
        "list_invoices": {},
        "pay": {"iban": STRING, "amount": {"type": "number"}, "reference": STRING},
    },
    "web": {"fetch": {"url": STRING}, "submit_form": {"url": STRING, "fields": {"type": "object"}}},
}


def described(upstream: str) -> list[tuple[str, str, Json]]:
    """Name, description and input schema of each tool of a server."""
    return [
        (name, str(getattr(Services, name).__doc__), {"type": "object", "properties": takes, "required": list(takes)})
        for name, takes in TOOLS[upstream].items()
    ]


def tool(services: Services, upstream: str, name: str) -> Callable[..., Any]:
    """A tool of a server, bound to a session's state."""
    if name not in TOOLS[upstream]:
        raise Missing(f"no tool {name}")
    found: Callable[..., Any] = getattr(services, name)
    return found
