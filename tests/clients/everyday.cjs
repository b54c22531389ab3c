// The everyday use of a store by the clients of Node.js: `everyday.cjs ioredis|node-redis plain|cluster HOST PORT PID`.
//
// Does one thing after the other as programs do, with bytes of every kind, then ends the node process PID and goes on with the
// same client object. Prints `CLIENT VERSION KIND: STEP, STEP, …` or fails at the first difference. NODE_PATH names the modules.
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');

const [name, kind, host, portText, pidText] = process.argv.slice(2);
const port = Number(portText);
const spread = Array.from({ length: 200 }, (_, i) => `${name}:${kind}:${i}`);
const of = (what) => `{${name}:${kind}}:${what}`;

// Each adapter says the same things in its client's own words. Keys and values are Buffers where bytes matter.
const adapters = {
  ioredis: async () => {
    const Redis = require('ioredis');
    const redis = kind === 'cluster' ? new Redis.Cluster([{ host, port }]) : new Redis(port, host);
    redis.on('error', () => {});
    const all = kind === 'cluster' ? () => redis.nodes('master') : () => [redis];
    const run = async (pipeline) => (await pipeline.exec()).map(([error, value]) => {
      if (error) throw error;
      return value;
    });
    return {
      version: require('ioredis/package.json').version,
      set: (key, value) => redis.set(key, value),
      setIfAbsent: (key, value) => redis.set(key, value, 'NX'),
      setForMs: (key, value, ms) => redis.set(key, value, 'PX', ms),
      get: (key) => redis.get(key),
      getBytes: (key) => redis.getBuffer(key),
      append: (key, value) => redis.append(key, value),
      remove: (key) => redis.del(key),
      exists: (key) => redis.exists(key),
      strlen: (key) => redis.strlen(key),
      incrBy: (key, by) => redis.incrby(key, by),
      expire: (key, s) => redis.expire(key, s),
      ttl: (key) => redis.ttl(key),
      // A cluster client of these leaves it to the program to ask for keys of one slot.
      getMany: (keys) => kind === 'cluster' ? Promise.all(keys.map((key) => redis.get(key))) : redis.mget(keys),
      getTogether: (keys) => redis.mget(keys),
      pipeline: async (pairs) => {
        // A cluster pipeline of ioredis is of keys of one node, so that it is made for each of them.
        if (kind === 'cluster') {
          return Promise.all(pairs.map(([key, value]) => run(redis.pipeline().set(key, value).get(key)))).then((r) => r.map((x) => x[1]));
        }
        const pipeline = redis.pipeline();
        for (const [key, value] of pairs) pipeline.set(key, value).get(key);
        return (await run(pipeline)).filter((_, i) => i % 2 === 1);
      },
      transaction: async (key) => run(redis.multi().set(key, '1').incr(key).get(key)),
      scan: async (match) => {
        const found = new Set();
        for (const one of all()) {
          for await (const keys of one.scanStream({ match, count: 50 })) keys.forEach((key) => found.add(key));
        }
        return found.size;
      },
      end: () => redis.disconnect(),
    };
  },
  'node-redis': async () => {
    const redis = require('redis');
    const url = `redis://${host}:${port}`;
    const client = kind === 'cluster' ? redis.createCluster({ rootNodes: [{ url }] }) : redis.createClient({ url });
    client.on('error', () => {});
    await client.connect();
    const bytes = client.withTypeMapping({ [redis.RESP_TYPES.BLOB_STRING]: Buffer });
    return {
      version: require('redis/package.json').version,
      set: (key, value) => client.set(key, value),
      setIfAbsent: (key, value) => client.set(key, value, { condition: 'NX' }),
      setForMs: (key, value, ms) => client.set(key, value, { expiration: { type: 'PX', value: ms } }),
      get: (key) => client.get(key),
      getBytes: (key) => bytes.get(key),
      append: (key, value) => client.append(key, value),
      remove: (key) => client.del(key),
      exists: (key) => client.exists(key),
      strlen: (key) => client.strLen(key),
      incrBy: (key, by) => client.incrBy(key, by),
      expire: (key, s) => client.expire(key, s),
      ttl: (key) => client.ttl(key),
      getMany: (keys) => kind === 'cluster' ? Promise.all(keys.map((key) => client.get(key))) : client.mGet(keys),
      getTogether: (keys) => client.mGet(keys),
      // What is asked for in one turn goes as one pipeline.
      pipeline: async (pairs) => (await Promise.all(pairs.flatMap(([key, value]) => [client.set(key, value), client.get(key)])))
        .filter((_, i) => i % 2 === 1),
      transaction: (key) => client.multi().set(key, '1').incr(key).get(key).exec(),
      scan: async (match) => {
        const found = new Set();
        const nodes = kind === 'cluster' ? await Promise.all(client.masters.map((node) => client.nodeClient(node))) : [client];
        for (const one of nodes) {
          for await (const keys of one.scanIterator({ MATCH: match, COUNT: 50 })) [].concat(keys).forEach((key) => found.add(key));
        }
        return found.size;
      },
      end: () => client.destroy(),
    };
  },
};

async function until(what, condition) {
  const deadline = Date.now() + 60_000;
  let last;
  for (;;) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within a minute: ${last}`);
    await new Promise((go) => setTimeout(go, 20));
  }
}

async function main() {
  const client = await adapters[name]();
  const steps = [];

  assert.equal(await client.set(of('a'), '1'), 'OK');
  assert.equal(await client.get(of('a')), '1');
  assert.equal(await client.setIfAbsent(of('a'), '2'), null);
  assert.equal(await client.append(of('a'), 'x'), 2);
  assert.equal(await client.get(of('a')), '1x');
  assert.equal(await client.remove(of('a')), 1);
  assert.equal(await client.get(of('a')), null);
  steps.push('strings');

  assert.equal(await client.incrBy(of('n'), 41), 41);
  assert.equal(await client.incrBy(of('n'), -1), 40);
  steps.push('counters');

  await Promise.all(spread.map((key, i) => client.set(key, `${i}`)));
  assert.deepEqual(await client.getMany([...spread, of('none')]), [...spread.map((_, i) => `${i}`), null]);
  assert.deepEqual(await client.getTogether([of('n'), of('none')]), ['40', null]);
  steps.push('mget');

  const pairs = Array.from({ length: 5000 }, (_, i) => [spread[i % 200], `${i}`]);
  if (kind === 'cluster') {
    // Several connections: what of one key is asked at once may be overtaken on none of them, but each key is asked once.
    for (let at = 0; at < pairs.length; at += 200) {
      const some = pairs.slice(at, at + 200);
      assert.deepEqual(await client.pipeline(some), some.map(([, value]) => value));
    }
  } else {
    assert.deepEqual(await client.pipeline(pairs), pairs.map(([, value]) => value));
  }
  steps.push('pipeline');

  assert.deepEqual(await client.transaction(of('t')), ['OK', 2, '2']);
  steps.push('transaction');

  assert.equal(await client.setForMs(of('e'), 'x', 50), 'OK');
  await until('expiry', async () => (await client.exists(of('e'))) === 0);
  assert.equal(await client.expire(of('n'), 1000), 1);
  const ttl = await client.ttl(of('n'));
  assert.ok(ttl >= 990 && ttl <= 1000, `TTL ${ttl}`);
  steps.push('expiry');

  assert.equal(await client.scan(`${name}:${kind}:*`), 200);
  steps.push('scan');

  const large = crypto.randomBytes(9_000_001);
  assert.equal(await client.set(of('large'), large), 'OK');
  assert.ok(large.equals(await client.getBytes(of('large'))), 'a large value');
  assert.equal(await client.strlen(of('large')), large.length);
  steps.push('large values');

  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const key = Buffer.concat([Buffer.from(of('')), every]);
  assert.equal(await client.set(key, every), 'OK');
  assert.ok(every.equals(await client.getBytes(key)), 'binary value');
  assert.equal(await client.set(of('empty'), ''), 'OK');
  assert.equal(await client.get(of('empty')), '');
  assert.equal(await client.remove(key), 1);
  steps.push('binary keys');

  process.kill(Number(pidText), 'SIGKILL');
  await until('reconnect', async () => {
    assert.deepEqual(await client.getMany(spread), spread.map((_, i) => `${4800 + i}`));
    return (await client.set(of('back'), '1')) === 'OK';
  });
  steps.push('reconnect');
  client.end();
  console.log(`${name} ${client.version} ${kind}: ${steps.join(', ')}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
