"""Throughput and latency under our own closed-loop client, which counts each request; and the CPU time of the same runs, as
a second opinion on that under redis-benchmark: this client costs less CPU than the servers do, while redis-benchmark without a
pipeline costs more, so that there the servers sleep and wake for nearly each request, which is part of what they cost."""
import statistics

import targets
from report import Check, Section, loss

PIPELINES = [1, 16, 64]
# Field, unit, name, whether less is better.
MEASURES = [
    ("operations_per_s", "/s", "throughput", False),
    ("p50_us", "µs", "p50", True),
    ("p99_us", "µs", "p99", True),
    ("p999_us", "µs", "p99.9", True),
]
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
    rows, checks, data, losses = [], [], [], []
    for test in ("get", "set"):
        for pipeline in PIPELINES:
            found = {name: median(samples[test, pipeline, name]) for name in SHOWN}
            beside = {name: found["dkv"]["server_ns"] / found[name]["server_ns"] for name in SHOWN}
            rows.append(
                [f"{test.upper()} pipeline {pipeline}"]
                + [f"{found[name]['operations_per_s'] / 1000:.0f}" for name in SHOWN]
                + [" / ".join(f"{found[name][quantile]:.0f}" for quantile in QUANTILES) for name in SHOWN]
                + [f"{found[name]['server_ns'] / 1000:.2f}" for name in SHOWN]
                + [f"{beside[name]:.2f}" for name in ("valkey", "redis", "echo")]
            )
            what = f"{test.upper()} pipeline {pipeline}, closed loop"
            checks.append(Check(f"{what}: DKV / Valkey", beside["valkey"], *targets.BESIDE_VALKEY[test, pipeline, 64]))
            checks.append(Check(f"{what}: DKV / echo", beside["echo"], targets.BESIDE_ECHO[pipeline]))
            for of, unit, name, less in MEASURES:
                others = {SHOWN[other]: found[other][of] for other in ("valkey", "redis")}
                losses += loss(f"{what}, {name}", found["dkv"][of], others, unit, less)
            data += [{"test": test, "pipeline": pipeline, "server": name, **about} for name, about in found.items()]
    names = list(SHOWN.values())
    columns = ["operation", *(f"{name} k/s" for name in names), *(f"{name} µs" for name in names)]
    columns += [*(f"{name} CPU µs" for name in names), "CPU DKV/Valkey", "DKV/redis", "DKV/echo"]
    shown = ["operation", "Valkey k/s", "redis k/s", "DKV k/s", "Valkey µs", "redis µs", "DKV µs", "CPU DKV/Valkey", "DKV/redis", "DKV/echo"]
    title = "Throughput, and latency of each request as p50 / p99 / p99.9 (client: our own closed loop, one thread)"
    return Section("latency", title, columns, rows, checks, data, markdown=shown, losses=losses)


def median(runs):
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
