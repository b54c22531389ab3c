"""redis-py against a store: `mixed.py plain|cluster HOST PORT OPERATIONS [PASSWORD]`.

Random operations of every family, single and pipelined, checked one by one against a model; prints `N operations` or
fails at the first difference."""
import random
import sys

import redis

kind, host, port, operations = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
password = sys.argv[5] if len(sys.argv) > 5 else None
options = {"host": host, "port": port, "password": password, "socket_timeout": 20}
client = redis.RedisCluster(**options) if kind == "cluster" else redis.Redis(**options)
rng = random.Random(20261122)
model = {}
keys = [f"{kind}:{i}".encode() for i in range(400)]
done = 0


def count():
    """Keys of the whole store. redis-py asks one node alone unless it is told otherwise."""
    return client.dbsize(**({"target_nodes": "primaries"} if kind == "cluster" else {}))


before = count()


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r} after {done} operations")


def one():
    key = rng.choice(keys)
    choice = rng.randrange(14)
    if choice < 3:
        value = rng.randbytes(rng.choice([0, 1, 8, 64, 900, 20_000]))
        same("SET", client.set(key, value), True)
        model[key] = value
    elif choice < 6:
        same("GET", client.get(key), model.get(key))
    elif choice == 6:
        same("DEL", client.delete(key), 1 if model.pop(key, None) is not None else 0)
    elif choice == 7:
        some = rng.sample(keys, 7)
        same("MGET", client.mget_nonatomic(some) if kind == "cluster" else client.mget(some), [model.get(k) for k in some])
    elif choice == 8:
        some = {k: rng.randbytes(5) for k in rng.sample(keys, 5)}
        client.mset_nonatomic(some) if kind == "cluster" else same("MSET", client.mset(some), True)
        model.update(some)
    elif choice == 9:
        counter = key + b":n"
        delta = rng.randrange(-50, 50)
        wanted = int(model.get(counter, 0)) + delta
        same("INCRBY", client.incrby(counter, delta), wanted)
        model[counter] = str(wanted).encode()
    elif choice == 10:
        tail = rng.randbytes(9)
        model[key] = model.get(key, b"") + tail
        same("APPEND", client.append(key, tail), len(model[key]))
    elif choice == 11:
        same("EXISTS", client.exists(key), int(key in model))
        same("STRLEN", client.strlen(key), len(model.get(key, b"")))
    elif choice == 12 and key in model:
        same("EXPIRE", client.expire(key, 1000), True)
        if not 990 <= client.ttl(key) <= 1000:
            sys.exit("TTL out of bounds")
        same("PERSIST", client.persist(key), True)
        same("TTL", client.ttl(key), -1)
    else:
        pipe = client.pipeline(transaction=False)
        some = [rng.choice(keys) for _ in range(50)]
        for k in some:
            pipe.get(k)
        same("pipeline", pipe.execute(), [model.get(k) for k in some])


while done < operations:
    one()
    done += 1

same("SCAN", {k for k in client.scan_iter(match=f"{kind}:*", count=100)}, set(model))
same("DBSIZE", count() - before, len(model))
client.delete(*[k for k in model if k]) if kind == "plain" else [client.delete(k) for k in model]
same("empty", client.exists(keys[0]), 0)
print(f"{done} operations")
