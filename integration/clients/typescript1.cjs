// An agent on the TypeScript SDK 1.x: reads a plan on stdin, writes what came of it on stdout.
const { packages, run } = require('./agent.cjs');
const { Client } = packages('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = packages('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { StdioClientTransport } = packages('@modelcontextprotocol/sdk/client/stdio.js');

const make = () => new Client({ name: 'typescript1', version: '1.0.0' });
run(make, StreamableHTTPClientTransport, StdioClientTransport).catch((error) => {
  console.error(error);
  process.exit(1);
});
