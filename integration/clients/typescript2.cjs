// An agent on the TypeScript client 2.x: 2026-07-28 where the server speaks it, unless the plan says otherwise.
const { answered, packages, run } = require('./agent.cjs');
const { Client, StreamableHTTPClientTransport } = packages('@modelcontextprotocol/client');
const { StdioClientTransport } = packages('@modelcontextprotocol/client/stdio');

function make(plan) {
  const options = { capabilities: { elicitation: {} }, versionNegotiation: { mode: plan.mode ?? 'auto' } };
  const client = new Client({ name: 'typescript2', version: '1.0.0' }, options);
  client.setRequestHandler('elicitation/create', answered);
  return client;
}

const call = (client, params, options) => client.callTool(params, options);
run(make, StreamableHTTPClientTransport, StdioClientTransport, call).catch((error) => {
  console.error(error);
  process.exit(1);
});
