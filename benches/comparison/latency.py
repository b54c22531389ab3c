"""Throughput and latency under our own closed-loop client, which counts each request; and the CPU time of the same runs, as
a second opinion on that under redis-benchmark: this client costs less CPU, so the servers are nearer to their limit."""
import statistics

from report import Section

PIPELINES = [1, 16, 64]
QUANTILES = ["p50_us", "p99_us", "p999_us"]
SHOWN = {"valkey": "Valkey", "redis": "redis", "echo": "echo", "dkv": "DKV"}


def measure(world):
    world.fill(64)
    samples = {}
    for number in range(world.options.rounds):
        for pipeline in PIPELINES:
            for test in ("get", "set"):
                for server in world.rotated(number):
                    found = world.machine.load(
                        server,
                        test,
                        pipeline=pipeline,
                        operations=world.operations(pipeline),
                        keys=world.options.keys,
                        seed=number + 1,
                    )
                    samples.setdefault((test, pipeline, server.name), []).append(found)
    rows, data = [], []
    for test in ("get", "set"):
        for pipeline in PIPELINES:
            found = {name: median(samples[test, pipeline, name]) for name in SHOWN}
            beside = {name: found["dkv"]["server_ns"] / found[name]["server_ns"] for name in SHOWN if found[name]["server_ns"]}
            rows.append(
                [f"{test.upper()} pipeline {pipeline}"]
                + [f"{found[name]['operations_per_s'] / 1000:.0f}" for name in SHOWN]
                + [" / ".join(f"{found[name][quantile]:.0f}" for quantile in QUANTILES) for name in SHOWN]
                + [f"{found[name]['server_ns'] / 1000:.2f}" for name in SHOWN]
                + [f"{beside.get(name, 0):.2f}" for name in ("valkey", "redis", "echo")]
            )
            data += [{"test": test, "pipeline": pipeline, "server": name, **about} for name, about in found.items()]
    names = list(SHOWN.values())
    columns = ["operation", *(f"{name} k/s" for name in names), *(f"{name} µs" for name in names)]
    columns += [*(f"{name} CPU µs" for name in names), "CPU DKV/Valkey", "DKV/redis", "DKV/echo"]
    shown = ["operation", "Valkey k/s", "redis k/s", "DKV k/s", "Valkey µs", "redis µs", "DKV µs", "CPU DKV/Valkey", "DKV/redis", "DKV/echo"]
    title = "Throughput, and latency of each request as p50 / p99 / p99.9 (client: our own closed loop, one thread)"
    return Section("latency", title, columns, rows, data=data, markdown=shown)


def median(runs):
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
