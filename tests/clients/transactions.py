"""redis-py's transactions against a store: `transactions.py plain|cluster HOST PORT ROUNDS [PORT]`.

Pipelines as redis-py makes them by default (MULTI … EXEC) are compared with a model; several threads change two keys of a
slot together with WATCH, lose nothing, and never read one of them without the other. The second port is another node.
Prints `N transactions, A aborted`."""
import random
import sys
import threading

import redis

kind, host, port, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ports = [port, int(sys.argv[5]) if len(sys.argv) > 5 else port]


def connect(at):
    options = {"host": host, "port": at, "socket_timeout": 20}
    return redis.RedisCluster(**options) if kind == "cluster" else redis.Redis(**options)


def fail(text):
    sys.exit(text)


client = connect(port)
rng = random.Random(20261122)
# redis-py makes something of the replies to a plain pipeline, and nothing of those to a cluster's.
OK = b"OK" if kind == "cluster" else True

# What a pipeline answers, one with an error in the middle, one that is refused while it is queued.
for number in range(rounds):
    tag = f"{{{kind}:{number}}}"
    pipe = client.pipeline(transaction=True)
    pipe.set(tag + "a", number).incrby(tag + "a", 5).append(tag + "b", "x" * rng.choice([1, 50, 30_000]))
    # In a cluster's pipeline redis-py has no commands of several keys, and its delete() returns nothing to go on with.
    pipe.get(tag + "a").get(tag + "none")
    pipe.delete(tag + "a")
    pipe.delete(tag + "b")
    pipe.get(tag + "a")
    got = pipe.execute()
    wanted = [OK, number + 5, got[2], str(number + 5).encode(), None, 1, 1, None]
    if got != wanted:
        fail(f"pipeline: got {got!r}, wanted {wanted!r}")
tag = f"{{{kind}:errors}}"
got = client.pipeline(transaction=True).set(tag + "a", "text").incr(tag + "a").get(tag + "a").execute(raise_on_error=False)
if got[0] != OK or not isinstance(got[1], redis.ResponseError) or got[2] != b"text":
    fail(f"an error in a pipeline: {got!r}")
if kind == "plain":
    try:
        client.pipeline(transaction=True).set("{1}a", 1).set("{2}a", 1).execute()
        fail("two slots were not refused")
    except redis.RedisError as error:
        if "same slot" not in str(error):
            fail(f"two slots: {error!r}")
    if client.exists("{1}a") + client.exists("{2}a") != 0:
        fail("a part of a refused transaction is there")
    got = client.pipeline(transaction=True).ping().set(tag + "a", 1).client_id().get(tag + "a").execute()
    if got[0] is not True or got[1] is not True or not isinstance(got[2], int) or got[3] != b"1":
        fail(f"commands without keys: {got!r}")

# Two counters that are one.
one, two = f"{{{kind}:watch}}one", f"{{{kind}:watch}}two"
done, aborted, wrong = [0], [0], []
lock = threading.Lock()


def change(at):
    own = connect(at)
    for _ in range(rounds):
        while True:
            pipe = own.pipeline(transaction=True)
            try:
                pipe.watch(one)
                before = int(pipe.get(one) or 0)
                pipe.multi()
                pipe.set(one, before + 1)
                pipe.set(two, before + 1)
                pipe.execute()
                with lock:
                    done[0] += 1
                break
            except redis.WatchError:
                with lock:
                    aborted[0] += 1
            finally:
                pipe.reset()
        got = own.pipeline(transaction=True).get(one).get(two).execute()
        if got[0] != got[1]:
            wrong.append(got)


threads = [threading.Thread(target=change, args=(ports[i % 2],)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if wrong or done[0] != 4 * rounds or client.get(one) != str(done[0]).encode() or client.get(two) != client.get(one):
    fail(f"{done[0]} done, {client.get(one)!r} and {client.get(two)!r}, halves seen: {wrong[:3]}")
print(f"{rounds + done[0]} transactions, {aborted[0]} aborted")
