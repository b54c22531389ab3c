"""Server CPU per operation under redis-benchmark: GET and SET, three depths of pipeline, and values of 1 KiB."""
import statistics

import targets
from machine import cpu_ns
from report import Check, Section, loss

SHAPES = [(1, 64), (16, 64), (64, 64), (16, 1024)]
TESTS = ["get", "set"]


def measure(world):
    options = world.options
    samples = {}
    for value_bytes in (64, 1024):
        world.fill(value_bytes)
        shapes = [shape for shape in SHAPES if shape[1] == value_bytes]
        for number in range(options.rounds):
            for pipeline, _ in shapes:
                for test in TESTS:
                    for server in world.rotated(number):
                        operations = world.operations(pipeline)
                        before = cpu_ns(server.pids)
                        world.machine.redis_benchmark(
                            server.port, "-P", pipeline, "-r", options.keys, "-d", value_bytes, "-t", test, operations=operations
                        )
                        cost = (cpu_ns(server.pids) - before) / operations
                        samples.setdefault((test, pipeline, value_bytes), {}).setdefault(server.name, []).append(cost)
    return section(samples)


def section(samples):
    rows, checks, data, losses = [], [], [], []
    for test in TESTS:
        for pipeline, value_bytes in SHAPES:
            columns = samples[test, pipeline, value_bytes]
            us = {name: statistics.median(values) / 1000 for name, values in columns.items()}
            beside = {name: us["dkv"] / us[name] for name in ("valkey", "redis", "echo")}
            what = f"{test.upper()} pipeline {pipeline}" + (", 1 KiB" if value_bytes != 64 else "")
            must, goal = targets.BESIDE_VALKEY[test, pipeline, value_bytes]
            first = Check(f"{what}: DKV / Valkey", beside["valkey"], must, goal)
            checks.append(first)
            losses += loss(f"{what}, server CPU", us["dkv"], {"Valkey": us["valkey"], "redis": us["redis"]}, "µs")
            floor, floor_shown = targets.BESIDE_ECHO.get(pipeline), ""
            if floor is not None and value_bytes == 64:
                second = Check(f"{what}: DKV / echo", beside["echo"], floor)
                checks.append(second)
                floor_shown = f"{second.bounds()} {second.verdict}"
            rows.append(
                [what]
                + [f"{us[name]:.2f}" for name in ("valkey", "redis", "echo", "dkv")]
                + [f"{beside['valkey']:.2f}", f"≤ {must:.2f}", f"{goal:.2f}", first.verdict]
                + [f"{beside['redis']:.2f}", f"{beside['echo']:.2f}", floor_shown]
            )
            data.append({"test": test, "pipeline": pipeline, "value_bytes": value_bytes, "us": us, "ratio": beside, "samples_ns": columns})
    columns = ["operation", "Valkey", "redis", "echo", "DKV", "DKV/Valkey", "must", "goal", "reached", "DKV/redis", "DKV/echo", "floor"]
    shown = ["operation", "Valkey", "redis", "echo", "DKV", "DKV/Valkey", "must", "goal", "DKV/redis", "DKV/echo"]
    title = "Server CPU per operation in microseconds (client: redis-benchmark)"
    return Section("cpu", title, columns, rows, checks, data, shown, losses=losses)
