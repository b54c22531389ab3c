"""What else one server is asked: many keys at once, many connections, keys of another node, nothing at all."""
import statistics
import time

import servers
import targets
from machine import cpu_ns, resident_bytes
from report import Check, Section, loss

# A tag whose slot (3443 of 16384) belongs to the first of two nodes, so that the second one forwards.
TAG = "{user1000}"
# As many keys as one tag need hold.
TAGGED_KEYS = 100_000
MGET_KEYS = 100
CONNECTIONS = 10_000


def medians(world, runs):
    """CPU nanoseconds of each run, by name, over all rounds. `runs` gives for each name a function that measures once."""
    samples = {name: [] for name in runs}
    for _ in range(world.options.rounds):
        for name, run in runs.items():
            samples[name].append(run())
    return {name: statistics.median(values) for name, values in samples.items()}


def mget(world):
    """CPU time per key of MGET beside that of a pipelined GET, our own client for both."""
    world.fill(64)
    keys, operations = world.options.keys, world.operations(64)

    def gets(server):
        return world.machine.load(server, "get", pipeline=64, operations=operations, keys=keys)["server_ns"]

    def mgets(server):
        shape = {"mget_keys": MGET_KEYS, "operations": max(operations // MGET_KEYS, 1)}
        return world.machine.load(server, "mget", keys=keys, **shape)["server_ns"] / MGET_KEYS

    rows, checks, data = [], [], []
    for name in ("valkey", "dkv"):
        server = world.contenders[name]
        found = medians(world, {"GET": lambda: gets(server), "MGET": lambda: mgets(server)})
        ratio = found["MGET"] / found["GET"]
        rows.append([name, *(f"{found[test] / 1000:.3f}" for test in ("GET", "MGET")), f"{ratio:.2f}"])
        data.append({"server": name, **found, "ratio": ratio})
        if name == "dkv":
            checks.append(Check("a key of MGET / a pipelined GET", ratio, targets.MGET_PER_KEY))
    columns = ["server", "GET pipeline 64, µs", f"MGET of {MGET_KEYS}, µs a key", "ratio"]
    own, valkey = data[1], data[0]
    facts = [
        f"A key of an MGET of {MGET_KEYS} costs {own['MGET'] / 1000:.2f} µs of server CPU, {own['ratio']:.2f} of a GET at pipeline 64"
        f" (Valkey {valkey['MGET'] / 1000:.2f} µs, {valkey['ratio']:.2f})."
    ]
    losses = loss(f"a key of an MGET of {MGET_KEYS}", own["MGET"] / 1000, {"Valkey": valkey["MGET"] / 1000}, "µs")
    return Section("mget", "Server CPU per key of MGET", columns, rows, checks, data, facts=facts, losses=losses)


def connections(world):
    """CPU time per GET with ten thousand connections beside that with fifty, without a pipeline."""
    world.fill(64)
    many = 200 if world.options.quick else CONNECTIONS
    keys, operations = world.options.keys, world.operations(1)

    def run(server, count):
        # Each connection is warmed up with one request; then each must have its turn a few times.
        enough = max(operations, 20 * count)
        return world.machine.load(server, "get", connections=count, operations=enough, keys=keys)["server_ns"]

    rows, checks, data = [], [], []
    for name in ("valkey", "dkv"):
        server = world.contenders[name]
        found = medians(world, {"few": lambda: run(server, 50), "many": lambda: run(server, many)})
        ratio = found["many"] / found["few"]
        rows.append([name, *(f"{found[count] / 1000:.2f}" for count in ("few", "many")), f"{ratio:.2f}"])
        data.append({"server": name, **found, "connections": many, "ratio": ratio})
        if name == "dkv":
            checks.append(Check(f"{many} connections / 50", ratio, targets.MANY_CONNECTIONS))
    columns = ["server", "50 connections, µs", f"{many} connections, µs", "ratio"]
    own, valkey = data[1], data[0]
    facts = [
        f"With {many:,} connections at pipeline 1 a GET costs {own['many'] / 1000:.1f} µs of server CPU, {own['ratio']:.2f} of what it costs"
        f" with 50 (Valkey {valkey['many'] / 1000:.1f} µs, {valkey['ratio']:.2f})."
    ]
    losses = loss(f"a GET with {many:,} connections", own["many"] / 1000, {"Valkey": valkey["many"] / 1000}, "µs")
    return Section("connections", "Server CPU per GET, pipeline 1", columns, rows, checks, data, facts=facts, losses=losses)


def idle(world):
    """What a store costs that nobody uses. Measured before anything is written to it."""
    pids = [pid for node in world.stores["Two"] for pid in node.pids]
    resident = resident_bytes(pids) / 2**20
    before, began = {pid: cpu_ns([pid]) for pid in pids}, time.monotonic()
    time.sleep(0.5 if world.options.quick else 10)
    lapse = time.monotonic() - began
    share = max((cpu_ns([pid]) - before[pid]) / 1e9 / lapse for pid in pids)
    rows = [[f"{resident:.1f}", f"{share:.2%}"]]
    columns = ["resident MiB, both nodes", "of a core, the busier node"]
    facts = [f"A two-node store that nobody uses holds {resident:.0f} MiB resident in all, and its busier node uses {share:.2%} of a core."]
    found = {"resident_mib": resident, "core_share": share}
    return Section("idle", "A store of two nodes that nobody uses", columns, rows, data=found, facts=facts)


def forwarding(world):
    """A GET that the other node must answer beside a local one: CPU time of both nodes, redis-benchmark, pipeline 16."""
    here, elsewhere = world.stores["Two"]
    pids = here.pids + elsewhere.pids
    keys, operations = min(world.options.keys, TAGGED_KEYS), world.options.operations
    key = ["-r", keys]
    world.machine.redis_benchmark(here.port, "-P", 64, *key, "SET", f"{TAG}__rand_int__", "x" * 64, operations=4 * keys)

    def run(node):
        before = cpu_ns(pids)
        world.machine.redis_benchmark(node.port, "-P", 16, *key, "GET", f"{TAG}__rand_int__", operations=operations)
        return (cpu_ns(pids) - before) / operations

    found = medians(world, {"local": lambda: run(here), "forwarded": lambda: run(elsewhere)})
    ratio = found["forwarded"] / found["local"]
    rows = [[*(f"{found[way] / 1000:.2f}" for way in ("local", "forwarded")), f"{ratio:.2f}"]]
    columns = ["local, µs", "forwarded, µs", "ratio"]
    facts = [f"A GET that the other node must answer costs {ratio:.2f} times a local one, over both nodes, at pipeline 16."]
    return Section("forwarding", "A GET that the other node must answer, CPU of both nodes, pipeline 16", columns, rows, data={**found, "ratio": ratio}, facts=facts)


def stalls(world):
    """Work of DKV's shard that took too long in all of the runs before, by its own counters."""
    node = world.contenders["dkv"]
    fields = {name: value for name, value in servers.info(world.machine, node).items() if servers.is_about_stalls(name)}
    lines = [line for line in world.manager.metrics().splitlines() if 'store="One"' in line and servers.is_about_stalls(line)]
    rows = [["INFO", name, value] for name, value in fields.items()]
    rows += [["/metrics", *line.rsplit(" ", 1)] for line in lines]
    checks = []
    if "dkv_stalls" in fields:
        checks.append(Check("stalls over 1 ms of CPU time", float(fields["dkv_stalls"]), targets.STALLS))
    told = ", ".join(f"{name} {value}" for name, value in fields.items())
    facts = [f"Stalls by DKV's own counters after all of the runs above: {told}."]
    return Section("stalls", "DKV's own count of stalls over all sections", ["where", "name", "value"], rows, checks, fields, facts=facts)
