"""The machine that most sections share: DKV, Valkey, redis and the echo floor side by side on one CPU, idle in turn.

DKV is the store One with one node of one shard. The store Two, of two nodes, is what forwarding and idle cost are measured
on; as it shares the CPU with One, no node polls before it sleeps (one that has its CPU alone does, for 50 us, which buys
latency with CPU time and would count as cost here)."""
import functools

import servers
from machine import CLIENT_CPU, Machine


class World:
    def __init__(self, options):
        self.options = options
        self.machine = Machine(options.built)
        self.filled = {}

    def __enter__(self):
        self.machine.__enter__()
        return self

    def __exit__(self, *about):
        self.machine.__exit__(*about)

    @functools.cached_property
    def manager(self):
        return servers.Manager(self.machine)

    @functools.cached_property
    def stores(self):
        """The nodes of the stores One and Two."""
        # Both exist before either starts, or One would be told that it is alone.
        self.manager.create("One")
        self.manager.create("Two", nodes=2)
        return {name: self.manager.start(name) for name in ("One", "Two")}

    @functools.cached_property
    def contenders(self):
        """By name. `dkv` comes last, so that it never runs first on a machine that has just woken up."""
        one = self.stores["One"][0]
        return {
            "valkey": servers.valkey(self.machine),
            "redis": servers.redis(self.machine),
            "echo": servers.echo(self.machine),
            "dkv": one,
        }

    def fill(self, value_bytes):
        """Every server holds every key, with values of this length."""
        for server in self.contenders.values():
            if self.filled.get(server.name) == value_bytes:
                continue
            if server.name == "echo":
                # Its replies are as long as the last value that it saw.
                self.machine.redis(server.port, "set", "k", "x" * value_bytes)
            else:
                self.machine.load(server, "fill", keys=self.options.keys, value_bytes=value_bytes, pipeline=64)
            self.filled[server.name] = value_bytes

    def operations(self, pipeline):
        """Without a pipeline an operation costs ten times as much, and a quarter of them says as much."""
        return max(self.options.operations // 4, 1) if pipeline == 1 else self.options.operations

    def rotated(self, number):
        """The contenders, another one first each time, so that none always follows the same one."""
        names = list(self.contenders)
        start = number % len(names)
        return [self.contenders[name] for name in names[start:] + names[:start]]
