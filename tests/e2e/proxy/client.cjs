// What a test suite does with toxiproxy-node-client: arguments are the port of the interface and an echo server.
const assert = require("node:assert");
const net = require("node:net");
const { Toxiproxy } = require("toxiproxy-node-client");

const [port, upstream] = process.argv.slice(2);
const server = new Toxiproxy(`http://127.0.0.1:${port}`);

function ping(proxy) {
  const at = proxy.listen.lastIndexOf(":");
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const socket = net.connect(Number(proxy.listen.slice(at + 1)), proxy.listen.slice(0, at), () => socket.write("x"));
    socket.on("data", () => {
      resolve(performance.now() - begun);
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

async function main() {
  assert.match(await server.getVersion(), /2\.12\.0/);
  assert.deepEqual(await server.getAll(), {});
  const body = { name: "echo", listen: "127.0.0.1:0", upstream };
  const proxy = await server.createProxy(body);
  assert.ok(!proxy.listen.endsWith(":0") && proxy.enabled);
  await ping(proxy);
  await assert.rejects(server.createProxy(body), /409/);
  await assert.rejects(server.get("none"), /404/);

  const toxic = await proxy.addToxic({
    name: "late", type: "latency", stream: "downstream", toxicity: 1, attributes: { latency: 60, jitter: 0 },
  });
  assert.equal(toxic.stream, "downstream");
  assert.ok((await ping(proxy)) >= 60);
  const changed = await toxic.update({ attributes: { latency: 1, jitter: 0 } });
  assert.equal(changed.attributes.latency, 1);
  await ping(proxy);
  assert.deepEqual((await proxy.getToxic("late")).toJson(), changed.toJson());
  await toxic.remove();
  await assert.rejects(proxy.getToxic("late"));

  const off = await proxy.update({ ...body, listen: proxy.listen, enabled: false });
  assert.equal(off.enabled, false);
  await assert.rejects(ping(proxy));
  await server.reset();
  await ping(proxy);

  const made = await server.populate([{ name: "second", listen: "127.0.0.1:0", upstream, enabled: true }]);
  await ping(made.second);
  assert.deepEqual(Object.keys(await server.getAll()).sort(), ["echo", "second"]);
  for (const one of Object.values(await server.getAll())) await one.remove();
  assert.deepEqual(await server.getAll(), {});
  console.log("all well");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
