"""What copies cost: a store of two nodes of one shard each, the first of which leads every range while the second, on the
other CPU, holds a copy; beside a store of one node without copies. Same node program, same client, interleaved.

The nodes are started as their manager starts them, with launch documents, and a follower made here stands in for the
manager: so that one node leads all, and the moment of a resync is chosen. The copy shares its CPU with the client, which
changes nothing of what is counted: the CPU time of the node that leads."""
import json
import pathlib
import socket
import statistics
import threading
import time

import servers
import targets
from machine import CLIENT_CPU, SERVER_CPU, Machine, cpu_ns
from report import Check, Section

RANGES = 256
# The log position that a range begins with.
FIRST_INDEX = 1 << 16
# (name, how writes are answered; none: no copies)
STORES = {"alone": None, "all": "all", "async": "async"}
PIPELINE = 16
# (value bytes, bytes of values that a resync carries)
RESYNCS = [(64, 100_000_000), (1024, 400_000_000)]


class Node:
    """A node as a manager starts it."""

    def __init__(self, store, index, cpu):
        self.store, self.index, self.cpu = store, index, cpu
        self.path = pathlib.Path(store.machine.directory.name) / f"{store.name}{index}"
        self.info = store.infos[index]

    def start(self):
        document = {
            "version": 1,
            "store": self.store.name,
            "store_id": "0123456789abcdef0123456789abcdef",
            "index": self.index,
            "nodes": self.store.infos,
            "epoch": 1,
            "bind": ["127.0.0.1"],
            "cpus": [self.cpu],
            "cpus_exclusive": False,
            "hash_seed": "00112233445566778899aabbccddeeff",
            "cluster_secret": "0123456789abcdef" * 4,
            "password_sha256": None,
            "protected_mode": True,
            "memory_bytes_max": 0,
            "control_socket": f"{self.path}.sock",
            "lock_file": f"{self.path}.lock",
        }
        if self.store.io is not None:
            document["io"] = self.store.io
        if self.store.ack is not None:
            document["replication"] = {"replicas": 1, "ack": self.store.ack}
        launch = pathlib.Path(f"{self.path}.json")
        launch.write_text(json.dumps(document) + "\n")
        machine = self.store.machine
        # As its manager does: a huge page that the allocator touches first would be a stall of the node's.
        start = f"export MIMALLOC_ALLOW_THP=0; exec '{machine.built}/dkv' node < {launch}"
        self.child = machine.start("sh", "-c", start, cpu=self.cpu)
        machine.wait_for(self.info["client_port"])
        self.server = servers.Server("dkv", self.info["client_port"], [self.child.pid], self.info["shard_ports"])
        self.boot = int(self.status()["boot"], 16)

    def connect(self):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(f"{self.path}.sock")
        return stream

    def ask(self, stream, op):
        stream.sendall(json.dumps({"op": op}).encode() + b"\n")
        lines = stream.makefile("r")
        return json.loads(lines.readline()), lines

    def status(self):
        with self.connect() as stream:
            return self.ask(stream, "status")[0]

    def rid(self, generation=0):
        return {"addr": {"node": self.index, "shard": 0}, "boot": self.boot, "generation": generation}


class Store:
    """Its nodes, and in place of a manager the follower that decides who leads what and what is in sync."""

    def __init__(self, machine, name, ack, port, io=None):
        self.machine, self.name, self.ack, self.io = machine, name, ack, io
        count = 1 if ack is None else 2
        self.infos = [
            {
                "name": f"{name}{index + 1}",
                "address": "127.0.0.1",
                "cluster_port": port + 10 * index,
                "client_port": port + 10 * index + 1,
                "shard_ports": [port + 10 * index + 2],
            }
            for index in range(count)
        ]
        self.nodes = [Node(self, index, cpu) for index, cpu in zip(range(count), (SERVER_CPU, CLIENT_CPU))]
        self.lock = threading.Lock()
        self.streams = {}
        self.configs = {}
        self.placement = [{"node": index, "shard": 0} for index in range(count)]
        self.leader = self.nodes[0]
        for node in self.nodes:
            node.start()
        if ack is not None:
            self.form()

    def form(self):
        """All ranges are led by the first node, and the second has a copy of each from the start."""
        members = [node.rid() for node in self.nodes]
        for number in range(RANGES):
            self.configs[number] = {
                "epoch": 1,
                "primary": members[0],
                "in_sync": members,
                "state": "normal",
                "first_index": FIRST_INDEX,
                "formed": 1,
            }
        for node in self.nodes:
            self.follow(node)
        self.machine.until(f"store {self.name} writes", lambda: self.machine.redis(self.leader.info["client_port"], "set", "k", "v") == "OK")

    def follow(self, node):
        stream = node.connect()
        _, lines = node.ask(stream, "follow")
        with self.lock:
            self.streams[node.index] = stream
            self.tell(node.index, range(RANGES))
        threading.Thread(target=self.listen, args=(node, lines), daemon=True).start()

    def tell(self, index, ranges, answer=False):
        news = [
            {"range": number, "config": self.configs[number], "placement": self.placement, "placement_version": 1, "answer": answer}
            for number in ranges
        ]
        stream = self.streams.get(index)
        if stream is not None:
            try:
                stream.sendall(json.dumps({"tell": "ranges", "news": news}).encode() + b"\n")
            except OSError:
                self.streams.pop(index, None)

    def listen(self, node, lines):
        for line in lines:
            with self.lock:
                asks = json.loads(line)["asks"]
                for ask in asks:
                    self.decide(ask)
                asked = sorted({ask["range"] for ask in asks})
                for index in list(self.streams):
                    self.tell(index, asked, answer=index == node.index)

    def decide(self, ask):
        """Compare-and-set on the epoch, as the managers do it; of the changes only what these measurements bring about."""
        config = self.configs[ask["range"]]
        if ask["epoch"] != config["epoch"] or ask["caller"] != config["primary"]:
            return
        if ask["do"] == "expand":
            in_sync = [*config["in_sync"], ask["add"]]
        elif ask["do"] == "shrink":
            in_sync = [rid for rid in config["in_sync"] if rid != ask["remove"]]
        else:
            return
        self.configs[ask["range"]] = {**config, "epoch": config["epoch"] + 1, "in_sync": in_sync}

    def kill_copy(self):
        """The second node dies, and its manager says so."""
        node = self.nodes[1]
        self.machine.end(node.child)
        with self.lock:
            self.streams.pop(1)
            for number, config in self.configs.items():
                in_sync = [rid for rid in config["in_sync"] if rid["addr"]["node"] != 1]
                self.configs[number] = {**config, "epoch": config["epoch"] + 1, "in_sync": in_sync}
            self.tell(0, range(RANGES))

    def whole(self):
        with self.lock:
            return all(len(config["in_sync"]) == 2 for config in self.configs.values())


def measure(world):
    options = world.options
    with Machine(options.built) as machine:
        stores = {name: Store(machine, name, ack, 7300 + 100 * at) for at, (name, ack) in enumerate(STORES.items())}
        return measured(world, machine, stores, options)


def measured(world, machine, stores, options):
    echo = servers.echo(machine)
    machine.redis(echo.port, "set", "k", "x" * 64)
    for store in stores.values():
        machine.load(store.leader.server, "fill", keys=options.keys, value_bytes=64, pipeline=64)
    costs, latencies = {}, {}
    for number in range(options.rounds):
        names = list(stores)
        names = names[number % len(names) :] + names[: number % len(names)]
        for test in ("set", "get"):
            for name in names:
                found = machine.load(
                    stores[name].leader.server, test, pipeline=PIPELINE, operations=options.operations, keys=options.keys, seed=number + 1
                )
                costs.setdefault((test, name), []).append(found["server_ns"])
        few = max(options.operations // 40, 100)
        for name in names:
            found = machine.load(stores[name].leader.server, "set", connections=1, operations=few, keys=options.keys, seed=number + 1)
            latencies.setdefault(name, []).append(found["p50_us"])
        latencies.setdefault("bare", []).append(machine.load(echo, "get", connections=1, operations=few)["p50_us"])
    rows, checks = [], []
    data = {"costs_ns": {f"{test} {name}": values for (test, name), values in costs.items()}, "latencies_us": latencies}
    for test in ("set", "get"):
        alone = statistics.median(costs[test, "alone"])
        for name in stores:
            cost = statistics.median(costs[test, name])
            rows.append([f"{test.upper()} pipeline {PIPELINE}, {what(name)}", f"{cost / 1000:.2f} µs", f"{cost / alone:.2f}"])
            if name != "alone":
                checks.append(Check(f"{test.upper()} pipeline {PIPELINE}, {what(name)} / no copies", cost / alone, targets.COPIES[test]))
    bare = statistics.median(latencies["bare"])
    alone = statistics.median(latencies["alone"])
    for name in stores:
        p50 = statistics.median(latencies[name])
        rows.append([f"SET one at a time, {what(name)}, p50", f"{p50:.1f} µs", f"{(p50 - alone) / bare:+.2f} round trips of {bare:.1f} µs"])
    for value_bytes, total in RESYNCS:
        found = resync(world, machine, stores["all"], value_bytes, 2_000_000 if options.quick else total)
        data[f"resync {value_bytes}"] = found
        rows.append([f"resync of values of {value_bytes} bytes", f"{found['mb_per_cpu_s']:.0f} MB/s of CPU", f"{found['seconds']:.2f} s, stalls {found['stalls']}, longest slice {found['slice_us_max']} µs"])
        checks.append(Check(f"CPU seconds for 200 MB of resync, values of {value_bytes} bytes", 200 / found["mb_per_cpu_s"], targets.RESYNC_200_MB_S))
        checks.append(Check(f"longest slice of a resync, values of {value_bytes} bytes, µs of CPU", found["slice_us_max"], targets.RESYNC_SLICE_US))
    title = "What one copy on another CPU costs the node that leads (server CPU)"
    return Section("copies", title, ["what", "measured", "beside no copies"], rows, checks, data)


def what(name):
    return {"alone": "no copies", "all": "one copy, answered when it holds it", "async": "one copy, answered at once"}[name]


def resync(world, machine, store, value_bytes, total):
    """Bytes of keys and values that a second of the leader's CPU brings to a copy that has nothing."""
    keys = total // value_bytes
    leader = store.leader.server
    machine.redis(leader.port, "flushall")
    machine.load(leader, "fill", keys=keys, value_bytes=value_bytes, pipeline=64)
    store.kill_copy()
    # The greatest of what follows alone, and not of the resync before.
    machine.redis(leader.port, "config", "resetstat")
    store.nodes[1].start()
    before_status = store.leader.status()
    before, began = cpu_ns(leader.pids), time.monotonic()
    store.follow(store.nodes[1])
    machine.until("the copy is in sync", store.whole)
    seconds = time.monotonic() - began
    spent_s = (cpu_ns(leader.pids) - before) / 1e9
    status = store.leader.status()
    shard, shard_before = status["shards"][0], before_status["shards"][0]
    return {
        "mb_per_cpu_s": keys * (16 + value_bytes) / 1e6 / spent_s,
        "cpu_s": spent_s,
        "seconds": seconds,
        "slice_us_max": shard["resync_us_max"],
        "piece_us_max": shard["piece_us_max"],
        "turn_us_max": shard["turn_us_max"],
        "stalls": shard["stalls"] - shard_before["stalls"],
        "long_turns": shard["long_turns"] - shard_before["long_turns"],
    }
