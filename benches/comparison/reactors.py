"""What it costs that a node has no io_uring: the same node program on a ring and on epoll, with the same keys and the same client,
in interleaved rounds. Each node has one shard and no copies."""
import statistics

import copies
import targets
from machine import Machine
from report import Check, Section

KINDS = ["uring", "epoll"]
# (pipeline, value bytes)
SHAPES = [(1, 64), (16, 64), (64, 64), (16, 1024)]
# The one that the bound is about.
BOUND_PIPELINE = 16
TESTS = ["get", "set"]


def measure(world):
    options = world.options
    costs, latencies = {}, {}
    with Machine(options.built) as machine:
        stores = {kind: copies.Store(machine, kind, None, 7300 + 100 * at, io=kind) for at, kind in enumerate(KINDS)}
        for value_bytes in sorted({shape[1] for shape in SHAPES}):
            for store in stores.values():
                machine.load(store.leader.server, "fill", keys=options.keys, value_bytes=value_bytes, pipeline=64)
            for number in range(options.rounds):
                for pipeline, _ in [shape for shape in SHAPES if shape[1] == value_bytes]:
                    for test in TESTS:
                        kinds = KINDS if number % 2 == 0 else KINDS[::-1]
                        for kind in kinds:
                            found = machine.load(
                                stores[kind].leader.server,
                                test,
                                pipeline=pipeline,
                                operations=world.operations(pipeline),
                                keys=options.keys,
                                value_bytes=value_bytes,
                                seed=number + 1,
                            )
                            shape = (test, pipeline, value_bytes)
                            costs.setdefault(shape, {}).setdefault(kind, []).append(found["server_ns"])
                            latencies.setdefault(shape, {}).setdefault(kind, []).append(found["p50_us"])
    return section(costs, latencies)


def section(costs, latencies):
    rows, checks, data = [], [], []
    for (test, pipeline, value_bytes), columns in costs.items():
        us = {kind: statistics.median(values) / 1000 for kind, values in columns.items()}
        p50 = {kind: statistics.median(values) for kind, values in latencies[test, pipeline, value_bytes].items()}
        ratio = us["epoll"] / us["uring"]
        what = f"{test.upper()} pipeline {pipeline}" + (", 1 KiB" if value_bytes != 64 else "")
        bound = ""
        if pipeline == BOUND_PIPELINE and value_bytes == 64:
            check = Check(f"{what}: epoll / io_uring", ratio, targets.EPOLL)
            checks.append(check)
            bound = f"{check.bounds()} {check.verdict}"
        rows.append(
            [what]
            + [f"{us[kind]:.2f}" for kind in KINDS]
            + [f"{ratio:.2f}", bound]
            + [f"{p50[kind]:.0f}" for kind in KINDS]
        )
        data.append({"test": test, "pipeline": pipeline, "value_bytes": value_bytes, "us": us, "ratio": ratio, "samples_ns": columns})
    title = "A node on epoll beside the same on io_uring: server CPU per operation in microseconds (client: our own closed loop)"
    return Section("io", title, ["operation", "io_uring", "epoll", "epoll/io_uring", "bound", "p50 io_uring, µs", "p50 epoll, µs"], rows, checks, data)
