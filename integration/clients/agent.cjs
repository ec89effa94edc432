// What both TypeScript agents share: the certificate (by undici, as a host would do it) and the walk through a plan.
// The packages live outside the checkout, so they are resolved from HOLDPOINT_NODE.
const { createRequire } = require('node:module');
const { readFileSync } = require('node:fs');
const path = require('node:path');

const packages = createRequire(path.join(process.env.HOLDPOINT_NODE, 'package.json'));
const undici = packages('undici');

// The SDKs have no option for a client certificate; a fetch of one's own has.
function fetchAs(plan) {
  if (!plan.cert) return undefined;
  const connect = {
    ca: readFileSync(plan.ca),
    cert: readFileSync(plan.cert),
    key: readFileSync(plan.key),
  };
  const dispatcher = new undici.Agent({ connect });
  return (url, init = {}) =>
    undici.fetch(url, { ...init, headers: [...new Headers(init.headers ?? {})], dispatcher });
}

// Says yes to whatever a server asks of the user, and fills in every field that it must have.
function answered(request) {
  const fields = request.params.requestedSchema.required ?? [];
  return { action: 'accept', content: Object.fromEntries(fields.map((field) => [field, 'Ada'])) };
}

// What a host would give with a call: a listener for progress, and a signal that cancels it.
function options(what, progress) {
  const given = {};
  if (what.progress) given.onprogress = (each) => progress.push(each.progress);
  if (what.cancel_after) {
    const cancel = new AbortController();
    given.signal = cancel.signal;
    setTimeout(() => cancel.abort(), what.cancel_after * 1000);
  }
  return given;
}

// An error is an answer too: a refusal must not end the session.
async function step(client, call, what) {
  const progress = [];
  try {
    if (what.op === 'parallel') return { ok: await Promise.all(what.steps.map((each) => step(client, call, each))) };
    if (what.op === 'serial') {
      const ok = [];
      for (const each of what.steps) ok.push(await step(client, call, each));
      return { ok };
    }
    if (what.op === 'pause') {
      await new Promise((done) => setTimeout(done, what.seconds * 1000));
      return { ok: null };
    }
    if (what.op === 'timed') {
      const began = performance.now();
      const told = await step(client, call, what.step);
      return { ...told, seconds: (performance.now() - began) / 1000 };
    }
    if (what.op === 'list') return { ok: await client.listTools() };
    const params = { name: what.name, arguments: what.arguments ?? {} };
    if (what.meta) params._meta = what.meta;
    const ok = await call(client, params, options(what, progress));
    return what.progress ? { ok, progress } : { ok };
  } catch (error) {
    const type = error?.constructor?.name;
    return { error: { type, code: error?.code, message: String(error?.message ?? error) } };
  }
}

function transportOf(plan, Http, Stdio) {
  if (plan.command) return new Stdio({ command: plan.command[0], args: plan.command.slice(1) });
  return new Http(new URL(plan.url), { fetch: fetchAs(plan), requestInit: { headers: plan.headers ?? {} } });
}

// `call` calls a tool of a client: the order of arguments differs between the SDK's versions.
async function run(makeClient, Http, Stdio, call) {
  const plan = JSON.parse(readFileSync(0, 'utf8'));
  const client = makeClient(plan);
  const transport = transportOf(plan, Http, Stdio);
  await client.connect(transport);
  const initialize = {
    protocolVersion: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
    serverInfo: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
  };
  const results = [];
  for (const each of plan.steps) results.push(await step(client, call, each));
  process.stdout.write(JSON.stringify({ initialize, results }) + '\n');
  await client.close();
  process.exit(0); // an open stream must not keep the script
}

module.exports = { answered, packages, run };
