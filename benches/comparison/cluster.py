"""A cluster client (redis-py) on a node with two shards: it goes straight to the thread that owns a key, so nothing is
forwarded. A plain client through the one client port shows beside it that the counter does count."""
import sys

import servers
import targets
from machine import Machine
from report import Check, Section

# Runs in the namespace: the kind of client, a port, a number of operations.
CLIENT = """
import sys, redis
kind, port, operations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = (redis.RedisCluster if kind == "cluster" else redis.Redis)(host="127.0.0.1", port=port)
for number in range(operations // 2):
    key = f"key:{number * 7919 % 100000:012d}"
    client.set(key, "x" * 64)
    assert client.get(key) == b"x" * 64
"""


def measure(world):
    operations = 400 if world.options.quick else 20_000
    rows, found = [], {}
    with Machine(world.options.built) as machine:
        # Unlike elsewhere the manager has all CPUs: two shards need two.
        manager = servers.Manager(machine, cpu="0-1")
        manager.create("Shards", cpus=2)
        [node] = manager.start("Shards")

        def forwarded():
            return sum(int(servers.info(machine, node, port)["dkv_forwarded"]) for port in node.shard_ports)

        shards = len(node.shard_ports)
        for kind in ("cluster", "plain"):
            before = forwarded()
            machine.run(sys.executable, "-c", CLIENT, kind, node.port, operations)
            found[kind] = forwarded() - before
            rows.append([kind, shards, operations, found[kind]])
    if found["plain"] == 0:
        sys.exit("the counter of forwarded requests stands still for a plain client too: it shows nothing")
    checks = [Check("forwarded requests of a cluster client", found["cluster"], targets.FORWARDED)]
    facts = [f"Of {operations:,} requests of a cluster client to a node with {shards} shards {found['cluster']} were forwarded; of a plain client's {found['plain']:,}."]
    columns = ["client", "shards", "requests", "forwarded"]
    return Section("cluster", "Requests that were forwarded to another shard", columns, rows, checks, found, facts=facts)
