// Preloaded into servers that bind every interface: they listen on 127.0.0.1 only, and what they are asked is written
// to HOLDPOINT_SEEN, one JSON object a line, so that a test can say that a server saw nothing.
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port === 'number' || typeof port === 'string') {
    const callback = rest.find((each) => typeof each === 'function');
    return listen.call(this, { port: Number(port), host: '127.0.0.1' }, callback);
  }
  return listen.call(this, port, ...rest);
};

function pairs(raw) {
  const headers = [];
  for (let i = 0; i < raw.length; i += 2) headers.push([raw[i], raw[i + 1]]);
  return headers;
}

function record(request, chunks) {
  const body = Buffer.concat(chunks).toString('utf8');
  const line = { event: 'complete', method: request.method, path: request.url, headers: pairs(request.rawHeaders), body };
  fs.appendFileSync(process.env.HOLDPOINT_SEEN, JSON.stringify(line) + '\n');
}

// The body is watched as it passes to whoever reads it: the server itself is not changed.
function watch(request) {
  const chunks = [];
  const emit = request.emit;
  request.emit = function (event, ...values) {
    if (event === 'data') chunks.push(Buffer.from(values[0]));
    if (event === 'end') record(request, chunks);
    return emit.call(this, event, ...values);
  };
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, ...values) {
  if (event === 'request') watch(values[0]);
  return emit.call(this, event, ...values);
};
