// An agent on the TypeScript client 2.x: 2026-07-28 where the server speaks it, unless the plan says otherwise.
const { packages, run } = require('./agent.cjs');
const { Client, StreamableHTTPClientTransport } = packages('@modelcontextprotocol/client');
const { StdioClientTransport } = packages('@modelcontextprotocol/client/stdio');

const make = (plan) =>
  new Client({ name: 'typescript2', version: '1.0.0' }, { versionNegotiation: { mode: plan.mode ?? 'auto' } });
run(make, StreamableHTTPClientTransport, StdioClientTransport).catch((error) => {
  console.error(error);
  process.exit(1);
});
