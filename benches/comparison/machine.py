"""One machine to measure on: a network namespace of its own with the processes started in it.

Servers run on CPU 0, clients on CPU 1. What a server costs is what the kernel's scheduler accounts to all of its threads,
so the client's cost is not in it. Everything ends with the namespace, also after Ctrl-C."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

SERVER_CPU = 0
CLIENT_CPU = 1
# How long anything may take to start, in seconds.
PATIENCE = 20


def cpu_ns(pids):
    """CPU time of all threads of these processes. The clock of a process has its number in it (clock_getcpuclockid)."""
    return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in pids)


def resident_bytes(pids):
    """Memory that these processes hold, pages of hugetlbfs included, which RSS alone leaves out."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.split()[0] in ("Rss:", "Shared_Hugetlb:", "Private_Hugetlb:"):
                total += int(line.split()[1]) * 1024
    return total


def raise_group(pid):
    """All of a session share one scheduler group; raises it, so that other jobs of the machine disturb less. Every
    contender's must be: who gets less of the CPU finds more to do at a time, and looks cheaper than it is."""
    with contextlib.suppress(OSError):
        pathlib.Path(f"/proc/{pid}/autogroup").write_text("-10")


class Machine:
    count = 0

    def __init__(self, built):
        Machine.count += 1
        self.built = pathlib.Path(built).resolve()
        self.namespace = f"dkvbench-{os.getpid()}-{Machine.count}"
        self.directory = tempfile.TemporaryDirectory(prefix="dkv-bench-")
        self.started = []

    def __enter__(self):
        try:
            self.set_up()
        except (FileNotFoundError, subprocess.CalledProcessError):
            self.__exit__()
            sys.exit("a network namespace cannot be made: run this as root, with iproute2 installed")
        except BaseException:
            # An interrupt in here is not followed by the end of the `with` block.
            self.__exit__()
            raise
        return self

    def set_up(self):
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        # Ten thousand connections several times over; none of these ports is a server's.
        self.run("sh", "-c", "echo 10000 60999 > /proc/sys/net/ipv4/ip_local_port_range")

    def __exit__(self, *_):
        # A second interrupt must not leave half of this behind; it takes a moment only.
        signals = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.take_down()
        finally:
            for number, before in signals.items():
                signal.signal(number, before)

    def take_down(self):
        for child in self.started:
            child.kill()
        listing = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout
        for pid in listing.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        for child in self.started:
            child.wait()
        if pathlib.Path("/run/netns", self.namespace).exists():
            subprocess.run(["ip", "netns", "delete", self.namespace], check=False)
        self.directory.cleanup()

    def inside(self, *command, cpu=None):
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        return ["ip", "netns", "exec", self.namespace, *pin, *map(str, command)]

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DKV_")}
        return {**kept, "HOME": self.directory.name, "XDG_CONFIG_HOME": self.directory.name}

    def run(self, *command, cpu=None):
        """Runs a command to its end; what it printed. Its failure ends everything."""
        child = subprocess.Popen(
            self.inside(*command, cpu=cpu),
            env=self.environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        raise_group(child.pid)
        printed, said = child.communicate()
        if child.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}: exit {child.returncode}\n{printed}{said}")
        return printed

    def try_run(self, *command):
        """What a command printed; none when it failed."""
        done = subprocess.run(self.inside(*command), env=self.environment(), text=True, capture_output=True)
        return done.stdout if done.returncode == 0 else None

    def start(self, *command, cpu=SERVER_CPU):
        """Starts a process. `ip netns exec` and `taskset` replace themselves by the program, so the pid is the program's."""
        name = pathlib.Path(str(command[0])).name
        log = pathlib.Path(self.directory.name) / f"{len(self.started)}-{name}.log"
        with log.open("w") as output:
            child = subprocess.Popen(
                self.inside(*command, cpu=cpu),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
                cwd=self.directory.name,
                start_new_session=True,
            )
        child.log = log
        self.started.append(child)
        raise_group(child.pid)
        return child

    def end(self, child):
        child.kill()
        child.wait()
        self.started.remove(child)

    def until(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(f"{child.log.name}:\n{child.log.read_text()[-2000:]}" for child in self.started)
                sys.exit(f"{what}: not after {PATIENCE} s\n{logs}")
            time.sleep(0.02)

    def redis(self, port, *command):
        return self.run("redis-cli", "-p", port, *command).strip()

    def wait_for(self, port):
        self.until(f"a PONG on port {port}", lambda: (self.try_run("redis-cli", "-p", port, "ping") or "").strip() == "PONG")

    def redis_benchmark(self, port, *command, operations):
        self.run("redis-benchmark", "-p", port, "-q", "-c", 50, "-n", operations, *command, cpu=CLIENT_CPU)

    def load(self, server, test, **options):
        """One run of our own closed-loop client; what it found. The CPU time is that of the server's processes."""
        named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        named += [f"--pid={pid}" for pid in server.pids]
        command = [self.built / "dkv-bench", "load", f"--target=127.0.0.1:{server.port}", f"--test={test}", *named]
        found = json.loads(self.run(*command, cpu=CLIENT_CPU))
        if found["misses"]:
            sys.exit(f"{server.name}: {found['misses']} keys are not there that were filled in")
        # The account of a thread that runs is brought up to date at its next tick: a run with --quick may be shorter.
        found["server_ns"] = max(found["server_ns"], 1)
        return found
