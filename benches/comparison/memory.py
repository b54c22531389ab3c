"""Resident bytes per key of 16 bytes with a value of 64, while a server grows from nothing: (what it holds filled - what it
held empty) / keys. One server at a time, each grown in steps and measured at each."""
import time

import servers
import targets
from machine import Machine, resident_bytes
from report import Check, Section, loss

SIZES = [2_000_000, 5_000_000, 20_000_000]
QUICK_SIZES = [20_000, 50_000]
# What is freed or faulted ahead in the background is done by then.
SETTLE_SECONDS = 1


def dkv(machine):
    manager = servers.Manager(machine)
    manager.create("One")
    return manager.start("One")[0]


def measure(world):
    sizes = QUICK_SIZES if world.options.quick else SIZES
    settle = 0 if world.options.quick else SETTLE_SECONDS
    found, stalls = {}, {}
    for name, start in (("valkey", servers.valkey), ("redis", servers.redis), ("dkv", dkv)):
        with Machine(world.options.built) as machine:
            server = start(machine)
            time.sleep(settle)
            empty, first = resident_bytes(server.pids), 0
            for keys in sizes:
                grown = machine.load(server, "fill", first_key=first, keys=keys - first, pipeline=64)
                time.sleep(settle)
                first = keys
                held = int(machine.redis(server.port, "dbsize"))
                assert held == keys, f"{name} holds {held} keys of {keys}"
                per_key = (resident_bytes(server.pids) - empty) / keys
                found[name, keys] = {"bytes_per_key": per_key, "server_ns": grown["server_ns"], "p999_us": grown["p999_us"], "max_us": grown["max_us"]}
            if name == "dkv":
                stalls = {field: value for field, value in servers.info(machine, server).items() if servers.is_about_stalls(field)}
    rows, checks, losses = [], [], []
    for keys in sizes:
        bytes_of = {name: found[name, keys]["bytes_per_key"] for name in ("valkey", "redis", "dkv")}
        rows.append(
            [f"{keys:,}", *(f"{value:.1f}" for value in bytes_of.values()), f"{bytes_of['dkv'] / bytes_of['valkey']:.2f}"]
            + [f"{found[name, keys]['server_ns'] / 1000:.2f}" for name in ("valkey", "redis", "dkv")]
        )
        losses += loss(f"memory at {keys:,} keys", bytes_of["dkv"], {"Valkey": bytes_of["valkey"], "redis": bytes_of["redis"]}, "bytes a key")
        if not world.options.quick:
            checks.append(Check(f"bytes per key at {keys:,}", bytes_of["dkv"], *targets.BYTES_PER_KEY))
    if "dkv_stalls" in stalls:
        checks.append(Check(f"stalls over 1 ms while growing to {sizes[-1]:,} keys", float(stalls["dkv_stalls"]), targets.STALLS))
    columns = ["keys", "Valkey, bytes", "redis", "DKV", "DKV/Valkey", "Valkey, CPU µs an insert", "redis CPU", "DKV CPU"]
    data = {"sizes": [{"server": name, "keys": keys, **about} for (name, keys), about in found.items()], "stalls": stalls}
    return Section("memory", "Resident bytes per key of 16 + 64 bytes", columns, rows, checks, data, losses=losses)
