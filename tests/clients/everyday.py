"""redis-py's everyday use of a store: `everyday.py plain|cluster HOST PORT PID`.

Does one thing after the other as programs do, with bytes of every kind, then ends the node process PID and goes on with the
same client object. Prints `redis-py VERSION KIND: STEP, STEP, …` or fails at the first difference."""
import os
import signal
import sys
import time

import redis

kind, host, port, pid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = {"host": host, "port": port, "socket_timeout": 20}
client = redis.RedisCluster(**options) if kind == "cluster" else redis.Redis(**options)
steps = []


def step(name):
    steps.append(name)


def same(got, wanted):
    if got != wanted:
        sys.exit(f"{kind}: after {steps}: got {got!r:.200}, wanted {wanted!r:.200}")


def of(name):
    """Keys of one slot, and of this run alone."""
    return f"{{redis-py:{kind}}}:{name}"


same(client.set(of("a"), "1"), True)
same(client.get(of("a")), b"1")
same(client.set(of("a"), "2", nx=True), None)
same(client.set(of("a"), "2", get=True), b"1")
same(client.append(of("a"), "x"), 2)
same(client.getrange(of("a"), 0, 0), b"2")
same(client.delete(of("a")), 1)
step("strings")

same(client.incr(of("n")), 1)
same(client.incrby(of("n"), 41), 42)
same(client.incrbyfloat(of("f"), 0.5), 0.5)
step("counters")

spread = {f"redis-py:{kind}:{i}": str(i) for i in range(200)}
client.mset_nonatomic(spread) if kind == "cluster" else same(client.mset(spread), True)
get_many = client.mget_nonatomic if kind == "cluster" else client.mget
same(get_many(list(spread) + [of("none")]), [v.encode() for v in spread.values()] + [None])
step("mget")

pipe = client.pipeline(transaction=False)
for i in range(5000):
    pipe.set(f"redis-py:{kind}:{i % 200}", i)
    pipe.get(f"redis-py:{kind}:{i % 200}")
got = pipe.execute()
same(got[1::2], [str(i).encode() for i in range(5000)])
step("pipeline")

pipe = client.pipeline(transaction=True)
pipe.set(of("t"), 1).incr(of("t")).get(of("t"))
same(pipe.execute()[1:], [2, b"2"])
step("transaction")

same(client.set(of("e"), "x", px=50), True)
deadline = time.monotonic() + 60
while client.exists(of("e")):
    if time.monotonic() > deadline:
        sys.exit("a key did not expire")
same(client.expire(of("n"), 1000), True)
same(990 <= client.ttl(of("n")) <= 1000, True)
step("expiry")

same(len(set(client.scan_iter(match=f"redis-py:{kind}:*", count=50))), 200)
step("scan")

large = os.urandom(9_000_001)
same(client.set(of("large"), large), True)
same(client.get(of("large")) == large, True)
same(client.strlen(of("large")), len(large))
step("large values")

every = bytes(range(256))
key = f"{{redis-py:{kind}}}".encode() + every
same(client.set(key, every), True)
same(client.get(key), every)
same(client.set(of("empty"), b""), True)
same(client.get(of("empty")), b"")
same(client.delete(key), 1)
step("binary keys")

os.kill(pid, signal.SIGKILL)
deadline = time.monotonic() + 60
while True:
    try:
        same(get_many([f"redis-py:{kind}:{i}" for i in range(200)]), [str(4800 + i).encode() for i in range(200)])
        same(client.set(of("back"), "1"), True)
        break
    except redis.RedisError as error:
        if time.monotonic() > deadline:
            sys.exit(f"not back: {error!r}")
step("reconnect")
print(f"redis-py {redis.__version__} {kind}: {', '.join(steps)}")
