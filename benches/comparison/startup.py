"""From the start of a server's process to its first PONG, in interleaved runs. DKV's node is started as its manager does
it: `dkv node` with the launch document on its standard input."""
import json
import pathlib
import statistics

import servers
import targets
from machine import CLIENT_CPU, SERVER_CPU, Machine
from report import Check, Section, loss

RUNS = 20
PORT = 7861


def launch_document(directory):
    node = {"name": "one1", "address": "127.0.0.1", "cluster_port": 7811, "client_port": PORT, "shard_ports": [7900]}
    return {
        "version": 1,
        "store": "One",
        "store_id": "0123456789abcdef0123456789abcdef",
        "index": 0,
        "nodes": [node],
        "epoch": 1,
        "bind": ["127.0.0.1"],
        "cpus": [SERVER_CPU],
        "cpus_exclusive": True,
        "hash_seed": "00112233445566778899aabbccddeeff",
        "cluster_secret": "0123456789abcdef" * 4,
        "password_sha256": None,
        "protected_mode": True,
        "memory_bytes_max": 0,
        "control_socket": f"{directory}/one1.sock",
        "lock_file": f"{directory}/one1.lock",
    }


def measure(world):
    runs = 2 if world.options.quick else RUNS
    with Machine(world.options.built) as machine:
        directory = machine.directory.name
        document = pathlib.Path(directory) / "launch.json"
        document.write_text(json.dumps(launch_document(directory)) + "\n")
        commands = {
            "valkey": (servers.VALKEY_PORT, [], [servers.valkey_program(), *servers.redis_like_arguments(servers.VALKEY_PORT, directory)]),
            "redis": (servers.REDIS_PORT, [], ["redis-server", *servers.redis_like_arguments(servers.REDIS_PORT, directory)]),
            "dkv": (PORT, [f"--input={document}"], [machine.built / "dkv", "node"]),
        }
        samples = {name: [] for name in commands}
        for _ in range(runs):
            for name, (port, options, command) in commands.items():
                cpus = [f"--server-cpu={SERVER_CPU}", f"--own-cpu={CLIENT_CPU}"]
                stopwatch = [machine.built / "dkv-bench", "start", f"--target=127.0.0.1:{port}", *cpus, *options]
                samples[name].append(json.loads(machine.run(*stopwatch, "--", *command))["ms"])
    rows, found = [], {}
    for name, values in samples.items():
        found[name] = statistics.median(values)
        rows.append([name, f"{found[name]:.1f}", f"{min(values):.1f}", f"{max(values):.1f}", f"{found[name] / statistics.median(samples['valkey']):.2f}"])
    checks = [Check("start to the first PONG, ms", found["dkv"], targets.START_MS)]
    others = {"Valkey": found["valkey"], "redis": found["redis"]}
    told = ", ".join(f"{name} {value:.1f} ms" for name, value in others.items())
    facts = [f"From the start of the process to the first PONG: DKV {found['dkv']:.1f} ms, {told} (medians of {runs})."]
    losses = loss("start to the first PONG", found["dkv"], others, "ms")
    columns = ["server", "median ms", "least", "most", "of Valkey's"]
    return Section("start", f"Start of the process to the first PONG, {runs} runs each", columns, rows, checks, samples, facts=facts, losses=losses)
