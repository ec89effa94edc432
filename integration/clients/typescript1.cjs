// An agent on the TypeScript SDK 1.x: reads a plan on stdin, writes what came of it on stdout.
const { answered, packages, run } = require('./agent.cjs');
const { Client } = packages('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = packages('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { StdioClientTransport } = packages('@modelcontextprotocol/sdk/client/stdio.js');
const { ElicitRequestSchema } = packages('@modelcontextprotocol/sdk/types.js');

function make() {
  const client = new Client({ name: 'typescript1', version: '1.0.0' }, { capabilities: { elicitation: {} } });
  client.setRequestHandler(ElicitRequestSchema, answered);
  return client;
}

const call = (client, params, options) => client.callTool(params, undefined, options);
run(make, StreamableHTTPClientTransport, StdioClientTransport, call).catch((error) => {
  console.error(error);
  process.exit(1);
});
