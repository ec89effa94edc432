"""Requests that parsers may read differently: the files of JSONTestSuite in every place of a call, and calls of our own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parts import CACHE

SUITE = CACHE / "jsontestsuite/test_parsing"
SUITE_FILES = 318


@dataclass(frozen=True)
class Case:
    """One request, and the group under which it is counted."""

    name: str
    group: str
    body: bytes = b""
    method: str = "POST"
    path: str = "/mcp"
    content_type: str | None = "application/json"


def call(params: str, envelope: str = '"jsonrpc":"2.0","id":1,"method":"tools/call"') -> bytes:
    """A call with these parameters as written."""
    return ("{" + envelope + ',"params":' + params + "}").encode()


# Where a file of the suite can stand in a call; `@` is its place.
PLACES = {
    "whole body": b"@",
    "arguments": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":@}}',
    "argument": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{"mode":"dry","x":@}}}',
    "argument that decides": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{"mode":@}}}',
    "name": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":@,"arguments":{}}}',
    "id": b'{"jsonrpc":"2.0","id":@,"method":"tools/call","params":{"name":"act","arguments":{}}}',
    "method": b'{"jsonrpc":"2.0","id":1,"method":@,"params":{"name":"act","arguments":{}}}',
    "params": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":@}',
    "_meta": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"k":@},"name":"act","arguments":{}}}',
    "before": b'@{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{}}}',
    "after": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{}}}@',
}


def suite() -> Iterator[Case]:
    """Every file in every place."""
    files = sorted(Path(SUITE).glob("*.json"))
    assert len(files) == SUITE_FILES, f"{len(files)} files of JSONTestSuite"
    for place, template in PLACES.items():
        for file in files:
            yield Case(f"{file.stem} as {place}", f"suite: {place}", template.replace(b"@", file.read_bytes()))


READ = '{"name":"act","arguments":{"mode":"dry"}}'
WRITE = '{"name":"rm","arguments":{}}'
TOP = '"jsonrpc":"2.0","id":1,"method":"tools/call"'

# Keys that some reader takes for `name`, `mode` and so on.
SPELLINGS = {
    "name": ["Name", "NAME", "nAme", "n\\u0061me", "\\u006eame", "name\\u0000", "name ", " name", "na\\u200bme", "name\\ud800"],
    "mode": ["Mode", "MODE", "m\\u006fde", "mode\\u0000", "mode[]", "mode.x", "mo\\u00adde"],
    "arguments": ["Arguments", "argument\u017f", "argument\\u017f", "ARGUMENTS", "arguments\\t", "argument\\u0073"],
    "params": ["Params", "param\u017f", "PARAMS", "\\u0070arams", "params\\u0000", "param\\u017f"],
    "method": ["Method", "METHOD", "\\u006dethod", "method\\u0000"],
    "id": ["Id", "ID", "\\u0069d", "\\u0131d", "\u0130d"],
    "jsonrpc": ["JsonRPC", "json\\u0072pc", "j\u017fonrpc"],
}
OTHER = {"name": '"rm"', "mode": '"wet"', "arguments": '{"mode":"wet"}', "params": WRITE, "method": '"ping"', "id": "2",
         "jsonrpc": '"1.0"'}


def spelled() -> Iterator[tuple[str, bytes]]:
    """Each key twice, in each order and each spelling; and each spelling alone."""
    for key, spellings in SPELLINGS.items():
        for spelling in [key, *spellings]:
            member = f'"{spelling}":{OTHER[key]}'
            for order in ("first", "last", "alone"):
                yield f"{key} also as {spelling}, {order}", with_member(key, member, order)


def with_member(key: str, member: str, order: str) -> bytes:
    """The call with another member at the level of `key`: before all others, after them, or in the place of `key`."""
    levels = {
        "mode": ({"mode": '"mode":"dry"'}, '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{@}}}'),
        "name": (
            {"name": '"name":"act"', "arguments": '"arguments":{"mode":"dry"}'},
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{@}}',
        ),
        "id": (
            {"jsonrpc": '"jsonrpc":"2.0"', "id": '"id":1', "method": '"method":"tools/call"', "params": f'"params":{READ}'},
            "{@}",
        ),
    }
    level = {"arguments": "name", "params": "id", "method": "id", "jsonrpc": "id"}.get(key, key)
    members, template = levels[level]
    kept = [text for name, text in members.items() if order != "alone" or name != key]
    texts = [member, *kept] if order == "first" else [*kept, member]
    return template.replace("@", ",".join(texts)).encode()


def shaped() -> Iterator[tuple[str, bytes]]:
    """Whole messages of another shape, encoding or number."""
    plain = call(READ)
    yield "plain", plain
    yield "white space everywhere", plain.replace(b",", b" ,\r\n\t").replace(b":", b"\n:\t")
    for codec in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-7"):
        yield codec, plain.decode().encode(codec)
    for space in ("\u00a0", "\u2028", "\ufeff", "\v", "\f", "\0", "\x1a"):
        yield f"{space!r} before", space.encode() + plain
        yield f"{space!r} after", plain + space.encode()
        yield f"{space!r} within", plain.replace(b",", b"," + space.encode(), 1)
    yield "batch", b"[" + plain + b"]"
    yield "batch of two", b"[" + plain + b"," + call(WRITE) + b"]"
    yield "two messages", plain + call(WRITE)
    yield "two lines", plain + b"\n" + call(WRITE)
    yield "comment", plain.replace(b",", b',/*","name":"rm",*/', 1)
    yield "line comment", b"//\n" + plain
    yield "trailing comma", call('{"name":"act","arguments":{"mode":"dry",}}')
    yield "single quotes", plain.replace(b'"', b"'")
    yield "no quotes", plain.replace(b'"mode"', b"mode")
    for params in ('["act",{"mode":"dry"}]', '["rm"]', "null", '"rm"', "[]", '[{"name":"rm"}]'):
        yield f"params {params}", call(params)
    for depth in (60, 61, 62, 63, 64, 65, 127, 128, 129, 200, 5000, 10001, 20000):
        yield f"depth {depth}", call('{"name":"act","arguments":{"mode":' + "[" * depth + "]" * depth + "}}")
    for number in NUMBERS:
        yield f"id {number}", call(READ, f'"jsonrpc":"2.0","id":{number},"method":"tools/call"')
        yield f"argument {number}", call('{"name":"act","arguments":{"mode":' + number + "}}")
        yield f"name {number}", call('{"name":' + number + "}")
    for text in TEXTS:
        yield f"mode {text!r}", call('{"name":"act","arguments":{"mode":"' + text + '"}}')
        yield f"name {text!r}", call('{"name":"' + text + '","arguments":{}}')
        yield f"method {text!r}", call(READ, f'"jsonrpc":"2.0","id":1,"method":"{text}"')
        yield f"id {text!r}", call(READ, f'"jsonrpc":"2.0","id":"{text}","method":"tools/call"')
        yield f"key {text!r}", call('{"name":"act","arguments":{"mode":"dry","' + text + '":1}}')
    for raw in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"\xc3"):
        yield f"raw {raw!r} in mode", call(READ).replace(b"dry", b"dry" + raw)
        yield f"raw {raw!r} in name", call(READ).replace(b"act", b"act" + raw)
        yield f"raw {raw!r} in a key", call(READ).replace(b"mode", b"mode" + raw)
    for key in ("__proto__", "constructor", "toString", "hasOwnProperty", "prototype"):
        yield f"argument {key}", call('{"name":"act","arguments":{"' + key + '":{"mode":"dry"}}}')
        yield f"params {key}", call('{"' + key + '":{"name":"rm"},"arguments":{}}')
    many = ",".join(f'"k{n}":{n}' for n in range(2000))
    yield "many keys", call('{"name":"act","arguments":{"mode":"dry",' + many + "}}")
    yield "a key twice among many", call('{"name":"act","arguments":{"mode":"wet",' + many + ',"mode":"dry"}}')
    yield "a key in another case among many", call('{"name":"act","arguments":{"mode":"dry",' + many + ',"MODE":"wet"}}')


NUMBERS = (
    "0 -0 1.0 1e0 1E+2 10e-1 9007199254740991 9007199254740992 9007199254740993 -9007199254740993 18446744073709551615 "
    "18446744073709551617 9223372036854775808 -9223372036854775809 1e400 -1e400 1e-400 0.1e-999999 1e308 1.8e308 5e-324 NaN "
    "Infinity -Infinity nan inf 01 +1 .5 1. 0x10 0b1 1_000 1,0 --1 1e 1e+ 1n true false null True None undefined "
    "0.1 0.10000000000000000555 100000000000000000000000000000000000000001"
).split()
TEXTS = [
    "dry", "d\\u0072y", "DRY", "dry\\u0000", "dry\\u0000x", "\\u0000", " dry", "dry ", "dr\u200by", "d\\/ry", "dry\\n", "\\ud800", "dry\\ud800",
    "\\udc00", "\\ud83d\\ude00", "\\ud800\\ud800", "\\ude00\\ud83d", "\\uD83D\\uDE00", "\\uFFFD", "\\u00e9", "e\\u0301", "\u00e9", "e\u0301",
    "\\x64ry", "\\'", "\\u64", "\\u{64}", "\\U00000064", "\\a", "\\0", "dry\t", "dry\x7f", "dry\\u2028", "dry\u2028", "\\ufeffdry", "\u212a",
    "tools\\/call", "tools/call", "Tools/Call", "tools/call ", "ping", "act", "a\\u0063t", "Act", "act\\u0000", "act ", "ac\u0442", "rm",
    "\\uD834\\uDd1e", "",
]


def calls() -> Iterator[Case]:
    """Every call of ours."""
    for name, body in spelled():
        yield Case(name, "ours: spellings", body)
    for name, body in shaped():
        yield Case(name, "ours: shapes", body)


PATHS = [
    "/v1/notes/7", "/v1/notes/7/", "/v1/notes", "/v1/notes/", "/v1/notes/caf%C3%A9", "/v1/notes/a%20b", "/v1/notes/a+b", "/v1/notes/100%25",
    "/v1/notes/a:b@c", "/v1/notes/...", "/v1/notes/~a", "/V1/notes/7", "/v1/NOTES/7", "/v1/notes/./7", "/v1/notes/../admin", "/v1/notes/..",
    "/v1/notes/.", "/v1/notes/%2e%2e/admin", "/v1/notes/.%2e/admin", "/v1/notes/%252e%252e/admin", "/v1/notes/..%2fadmin", "/v1/notes/%2fadmin",
    "/v1/notes/..%5cadmin", "/v1/notes\\..\\admin", "/v1//notes/7", "//v1/notes/7", "/v1/notes//7", "/v1/notes/7//", "/v1/notes/7;x=1",
    "/v1/notes/..;/admin", "/v1/notes;/../admin", "/v1/notes/7%3bx", "/v1/notes/%00", "/v1/notes/7%00.json", "/v1/notes/7%0a", "/v1/notes/%0d%0a",
    "/v1/notes/7%", "/v1/notes/7%2", "/v1/notes/%zz", "/v1/notes/%c0%af", "/v1/notes/%c0%ae%c0%ae/admin", "/v1/notes/%ff", "/v1/notes/%ed%a0%80",
    "/v1/notes/%u002e", "/v1/%6eotes/7", "/v1/notes/%37", "/v1/notes/7#x", "/v1/notes/7%23x", "/v1/notes/7%3fx", "/v1/notes/7?x=1", "/v1/notes?id=1",
    "/v1/notes/%7E", "/v1/notes/e%CC%81", "/v1/notes/%E2%80%AE7", "/v1/notes/*", "/v1/notes/|", "/v1/notes/^", "/v1/notes/\"", "/v1/notes/a,b",
    "/v1/notes/%2E", "/v1/notes/7%20", "/v1/notes/%207", "/v1/notes/" + "a" * 9000,
]  # fmt: skip
QUERIES = [
    "mode=dry", "mode=wet", "", "x=1", "mode=dry&mode=wet", "mode=wet&mode=dry", "mode=dry&Mode=wet", "MODE=dry", "mode=dry&m%6fde=wet",
    "m%6fde=dry", "m%6Fde=wet", "mode=dry;mode=wet", "mode=wet;mode=dry", "x=1;mode=dry", "mode=dry%26mode=wet", "mode=d%72y", "mode=dry%00",
    "mode%00=dry", "mode[]=dry", "mode[0]=dry", "mode=dry&mode[]=wet", "mode.x=dry", "mode=dry+", "mode=+dry", "mode=%20dry", "mode=dr%79",
    "mode=%64%72%79", "mode=dry%", "mode=%zz", "mode=%ff", "mode=%c0%af", "mode=dry#x", "mode=dry%23x", "&mode=dry&", "&&mode=dry", "mode==dry",
    "=mode=dry", "mode", "mode=", "=dry", "+mode=dry", "mode+=dry", "%20mode=dry", "mode%20=dry", "mode=dry%0a", "mode=dry%0d%0a", "mo_de=dry",
    "_method=DELETE&mode=dry", "mode=dry&_method=DELETE", "mode=%e2%84%aa", "mod%C4%B1=dry", "mode=dry,wet", "mode=%64ry&MODE=wet", "mode=dry?mode=wet",
    "?mode=dry", "mode=%u0064ry", "mode=dry%2526", "mode=%2564ry",
]  # fmt: skip
FORM = "application/x-www-form-urlencoded"
TYPES = [
    FORM, "application/X-WWW-Form-Urlencoded", FORM + "; charset=utf-8", FORM + "; charset=utf-16", FORM + "; charset=latin1", "text/plain",
    "multipart/form-data; boundary=x", "application/json", "application/json; charset=utf-16", "text/json", None,
]  # fmt: skip
JSON_BODIES = ['{"mode":"dry"}', '{"mode":"wet"}', '{"mode":"dry","mode":"wet"}', '{"Mode":"dry"}', '["dry"]', '"dry"', "mode=dry"]


def requests() -> Iterator[Case]:
    """Plain HTTP: targets, queries, forms, and bodies in one type and another."""
    for path in PATHS:
        yield Case(f"path {path[:60]}", "http: paths", method="GET", path=path, content_type=None)
    for query in QUERIES:
        yield Case(f"query {query}", "http: queries", method="GET", path=f"/v1/search?{query}", content_type=None)
        yield Case(f"form {query}", "http: forms", query.encode(), path="/v1/forms", content_type=FORM)
    for kind in TYPES:
        for body in JSON_BODIES:
            yield Case(f"{body} as {kind}", "http: types", body.encode(), path="/v1/forms", content_type=kind)
