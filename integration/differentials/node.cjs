// Says how Node.js reads requests: Buffer to text and JSON.parse, as body parsers do, URLSearchParams and URL.
//
// A line on standard input is a kind (json, query, path) and the bytes in Base64; a line of JSON on standard output is
// what was read, or {"ok": false}.
"use strict";

const readline = require("node:readline");

function member(value, key) {
  return (value === null || typeof value !== "object" ? undefined : value[key]) ?? null;
}

const readers = {
  json(bytes) {
    const read = JSON.parse(bytes.toString("utf8"));
    const params = member(read, "params");
    const given = member(params, "arguments");
    return {
      method: member(read, "method"),
      id: member(read, "id"),
      name: member(params, "name"),
      arguments: given,
      mode: member(given, "mode"),
    };
  },
  query(bytes) {
    const pairs = Object.create(null);
    for (const [key, value] of new URLSearchParams(`?${bytes.toString("latin1")}`)) {
      (pairs[key] ??= []).push(value);
    }
    return { pairs };
  },
  path(bytes) {
    return { path: decodeURIComponent(new URL(bytes.toString("latin1"), "http://upstream.test").pathname) };
  },
};

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const [kind, encoded] = line.split(" ");
  let told;
  try {
    // What is nested too deeply to be written again is taken as not read: it is far beyond what the gateway passes.
    told = JSON.stringify({ ok: true, ...readers[kind](Buffer.from(encoded, "base64")) });
  } catch {
    told = '{"ok":false}';
  }
  process.stdout.write(`${told}\n`);
});
