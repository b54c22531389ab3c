"""What the load generator of `dkv bench` itself costs beside redis-benchmark, both in a closed loop on the same node in turns; and
whether it adds to a latency: the median at a tenth of the load, counted from when requests were due, beside that of one connection
which sends one request after the other. Its thread polls there, as it does by itself where a CPU is left over for it."""
import json
import resource
import statistics

import servers
import targets
from machine import CLIENT_CPU, Machine
from report import Check, Section

PIPELINES = [1, 16]


def measure(world):
    samples, medians = {}, []
    with Machine(world.options.built) as machine:
        manager = servers.Manager(machine)
        manager.create("One")
        [node] = manager.start("One")
        machine.load(node, "fill", keys=world.options.keys, value_bytes=64, pipeline=64)

        def bench(*flags):
            """One load; its result. A rate that was not held is told by exit code 4, which ends everything."""
            keys = ["--reads", 100, "--keys", world.options.keys, "--key-prefix", "key:", "--warm-up", 0, "-o", "json"]
            command = [machine.built / "dkv", "bench", "--target", f"127.0.0.1:{node.port}", *keys, *flags]
            return json.loads(machine.run(*command, cpu=CLIENT_CPU))

        for number in range(world.options.rounds):
            for pipeline in PIPELINES:
                operations = world.operations(pipeline)
                ways = {
                    "redis-benchmark": lambda: machine.redis_benchmark(
                        node.port, "-P", pipeline, "-r", world.options.keys, "-d", 64, "-t", "get", operations=operations
                    ),
                    "dkv bench": lambda: bench("--closed", "-c", 50, "-P", pipeline, "-n", operations),
                }
                for name in sorted(ways, reverse=number % 2 == 0):
                    before = children_s()
                    ways[name]()
                    samples.setdefault((pipeline, name), []).append((children_s() - before) / operations * 1e6)
            few = max(world.operations(1) // 10, 100)
            single = bench("--closed", "-c", 1, "-n", few)
            most = bench("--closed", "-c", 50, "-n", world.operations(1))["rate"]
            tenth = bench("-c", 8, "--rate", most / 10, "--spin", "always", "-n", few, "--duration", "1h")
            medians.append([found["latency_ms"]["all"]["p50"] * 1000 for found in (single, tenth)])
    return section(samples, medians)


def children_s():
    """CPU time of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def section(samples, medians):
    rows, checks, data = [], [], []
    for pipeline in PIPELINES:
        us = {name: statistics.median(samples[pipeline, name]) for name in ("redis-benchmark", "dkv bench")}
        ratio = us["dkv bench"] / us["redis-benchmark"]
        check = Check(f"GET pipeline {pipeline}: CPU of dkv bench / redis-benchmark", ratio, targets.GENERATOR[pipeline])
        checks.append(check)
        shown = [f"{us['redis-benchmark']:.2f}", f"{us['dkv bench']:.2f}", f"{ratio:.2f}", check.bounds(), check.verdict]
        rows.append([f"client CPU of a GET, pipeline {pipeline}, µs", *shown])
        data.append({"pipeline": pipeline, "us": us, "ratio": ratio, "samples_us": {name: samples[pipeline, name] for name in us}})
    single, tenth = (statistics.median(side) for side in zip(*medians))
    check = Check("p50 at a tenth of the load / one connection in a closed loop", tenth / single, targets.GENERATOR_P50)
    checks.append(check)
    rows.append(["p50 of one connection in a closed loop, and of eight at a tenth of the load, µs", f"{single:.1f}", f"{tenth:.1f}", f"{tenth / single:.2f}", check.bounds(), check.verdict])
    data.append({"p50_us": {"single": single, "tenth": tenth}})
    columns = ["what", "beside", "dkv bench", "ratio", "bound", "verdict"]
    title = "What the load generator costs itself, beside redis-benchmark"
    return Section("generator", title, columns, rows, checks, data, columns[:5])
