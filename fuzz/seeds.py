"""Makes the first corpus of each fuzz target: from the cases in the Rust tests, and from JSONTestSuite where it is given.

`seeds.py CORPUS [TEST_PARSING]` writes CORPUS/TARGET/… for each target; what fuzzing added there stays.
"""

import ast
import hashlib
import re
import struct
import sys
import zlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":@}}'
LEGACY = b"POST\ncontent-type: application/json\n\n"
MODERN = (
    b"POST\ncontent-type: application/json\nmcp-protocol-version: 2026-07-28\nmcp-method: tools/call\nmcp-name: act\n\n"
)
META = b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
# Raw strings with their number of #, and plain ones with escapes.
LITERAL = re.compile(r'b?r(?P<hashes>#+)"(?P<raw>.*?)"(?P=hashes)|b?"(?P<plain>(?:[^"\\]|\\.)*)"', re.DOTALL)


def literals(path: str) -> list[bytes]:
    """Every string and byte string of a Rust file, as the bytes it stands for; those in another syntax are left out."""
    found = []
    for match in LITERAL.finditer((REPOSITORY / path).read_text(encoding="utf-8")):
        if match["raw"] is not None:
            found.append(match["raw"].encode())
            continue
        # Rust's \u{…} and line continuations, for Python.
        text = re.sub(r"\\u\{([0-9a-fA-F]+)\}", lambda code: chr(int(code[1], 16)), match["plain"])
        text = re.sub(r"\\\n\s*", "", text)
        try:
            found.append(b"".join(piece(each) for each in re.findall(r"\\x..|\\.|[^\\]+", text, re.DOTALL)))
        except (SyntaxError, ValueError):
            continue
    return sorted({each for each in found if each})


def piece(text: str) -> bytes:
    """One escape, or text without any."""
    if not text.startswith("\\"):
        return text.encode()
    escape: str = ast.literal_eval(f"'{text}'")
    return escape.encode("latin-1")


def replies() -> list[bytes]:
    """Replies to learn from, as the tests have them: prose, records, and results of MCP."""
    prose = [each for path in ("src/flow/finding.rs", "tests/flow/world.rs") for each in literals(path) if len(each) > 30]
    record = b'{"id":"m-%d","from":"bob@partner.test","mail":"ana@example.org","body":"%s"}'
    plain = [each for each in prose if not set(each) & set(b'"\\\n')]
    records = [b"[" + b",".join(record % (n, each) for n, each in enumerate(plain[at : at + 3])) + b"]" for at in range(0, len(plain), 3)]
    result = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"%s"}]}}'
    return [*prose, *records, *(result % each for each in plain), *(result % each.replace(b'"', b'\\"') for each in records)]


def frames(bodies: list[bytes]) -> list[bytes]:
    """Frames of the journal, each with its length before it, and segments with sums that are right."""
    head = struct.pack("<Q16s", 1_800_000_000_000_000, b"t" * 16)
    names = b"".join(struct.pack("<H", len(each)) + each for each in (b"spiffe://example.org/a", b"task:1", b"0badcafe"))
    whole = [bytes([kind | 0x80, 3]) + head + names + body for body in bodies for kind in (1, 2, 4)]
    lone = [struct.pack("<H", len(each)) + each for each in whole]
    summed = [struct.pack("<IQ", len(each), zlib.crc32(each)) + each for each in whole]
    return [*lone, *(b"HPFLOW" + bytes([version]) + b"\7" * 8 + each for each in summed for version in (2, 3)), b"".join(lone)]


def journal() -> list[bytes]:
    """What frames hold: something learnt, steps that were sent, stopped and approved, and a step of a sequence."""
    longs = lambda *each: struct.pack("<I", len(each)) + b"".join(struct.pack("<Q", one) for one in each)  # noqa: E731
    words = lambda *each: struct.pack("<I", len(each)) + b"".join(struct.pack("<I", one) for one in each)  # noqa: E731
    text = lambda each: struct.pack("<I", len(each)) + each  # noqa: E731
    fragment = struct.pack("<IB", 0, 1) + longs(11) + words(1, 2, 3) + longs(21, 22) + longs(31)
    learnt = b"\1" + bytes(16) + text(b"mail") + text(b"read") + b"\1\1\0" + struct.pack("<I", 1) + fragment
    learnt += longs(41) + longs(51) + words(61) + longs(71)
    sent = b"\1\0" + longs(1, 2) + longs(1) + struct.pack("<Q", 30) + longs(81, 82)
    stopped = b"\1\1" + struct.pack("<Q", 9) + longs(1)
    approved = b"\1\2" + struct.pack("<Q", 9)
    passed = struct.pack("<QB", 7, 0) + struct.pack("<BHQ", 1, 3, 1_800_000_000_000_000)
    return [learnt, sent, stopped, approved, passed]


def seeds(suite: list[bytes]) -> dict[str, list[bytes]]:
    """The inputs of each target, in the form that it takes them."""
    decode, strict = literals("tests/decode.rs"), literals("src/json/tests.rs")
    texts = [*suite, *strict, *(each for each in decode if each[:1] in b'{["')]
    bodies = [*texts, *(CALL.replace(b"@", each) for each in suite)]
    modern = [each.replace(b'"params":{', b'"params":{' + META + b",", 1) for each in bodies if b'"params":{' in each]
    streams = [each for each in decode if b"data" in each or b"\r" in each or b"event" in each]
    paths = [each for each in decode if each[:1] == b"/"]
    pairs = [each for each in decode if b"=" in each]
    wire = [each for each in literals("tests/identity.rs") if b"\r\n" in each]
    heads = [b"POST / HTTP/1.1\r\nhost: gw\r\ncontent-length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nhost: gw\r\n\r\n",
             b"POST / HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\na: b\r\n\r\nGET / HTTP/1.1\r\nhost: gw\r\n\r\n"]  # fmt: skip
    learnt = replies()
    # How it is read, which piece leaves and how, and where it is cut.
    ways = [bytes([reading, 0, 255, way, 2, 40, 90]) for reading in (0, 1, 2, 5, 29) for way in (0, 1, 3, 8, 12)]
    return {
        "flow": [ways[at % len(ways)] + each for at, each in enumerate([*learnt, *learnt, *learnt, *texts])],
        "journal": frames(journal()),
        "json": texts,
        "jsonrpc": [*(LEGACY + each for each in bodies), *(MODERN + each for each in modern)],
        "sse": [b"\x03\xff\x01\x05\x09" + each for each in [*streams, *(b"data: " + each + b"\r\n\r\n" for each in decode)]],
        "http": [*(each + b"\ngw:8443\naccept: a\n\n" for each in paths), *(b"/a?" + each + b"\n[::1]:1\n\n" + each for each in pairs)],
        "framing": [b"\x03\x01\x05\x40" + each for each in [*wire, *heads]],
    }


def main() -> None:
    """Writes each seed under its digest."""
    suite = [file.read_bytes() for file in sorted(Path(sys.argv[2]).glob("*.json"))] if len(sys.argv) > 2 else []
    for target, inputs in seeds(suite).items():
        place = Path(sys.argv[1]) / target
        place.mkdir(parents=True, exist_ok=True)
        # Deep nesting a hundred thousand times over only makes every run slow.
        short = [each for each in inputs if len(each) <= 4096]
        for each in short:
            (place / hashlib.sha256(each).hexdigest()[:16]).write_bytes(each)
        print(f"seeds {target}: {len(short)}")


main()
