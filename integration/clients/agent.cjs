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

// An error is an answer too: a refusal must not end the session.
async function step(client, what) {
  try {
    if (what.op === 'parallel') return { ok: await Promise.all(what.steps.map((each) => step(client, each))) };
    if (what.op === 'list') return { ok: await client.listTools() };
    const params = { name: what.name, arguments: what.arguments ?? {} };
    if (what.meta) params._meta = what.meta;
    return { ok: await client.callTool(params) };
  } catch (error) {
    return { error: { type: error.constructor.name, code: error.code, message: String(error.message) } };
  }
}

function transportOf(plan, Http, Stdio) {
  if (plan.command) return new Stdio({ command: plan.command[0], args: plan.command.slice(1) });
  return new Http(new URL(plan.url), { fetch: fetchAs(plan), requestInit: { headers: plan.headers ?? {} } });
}

async function run(makeClient, Http, Stdio) {
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
  for (const each of plan.steps) results.push(await step(client, each));
  process.stdout.write(JSON.stringify({ initialize, results }) + '\n');
  await client.close();
  process.exit(0); // an open stream must not keep the script
}

module.exports = { packages, run };
