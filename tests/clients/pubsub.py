"""redis-py's publish and subscribe against a store: `pubsub.py plain|cluster HOST PORT PORT MESSAGES`.

Subscribers on both ports, in RESP2 and RESP3, and publishers on both: every subscriber gets every message of every
publisher in its order. A subscriber that goes is not counted any more. Prints `N messages to M subscribers`."""
import sys
import threading

import redis

kind, host, ports, messages = sys.argv[1], sys.argv[2], [int(sys.argv[3]), int(sys.argv[4])], int(sys.argv[5])
PATIENCE = 60


def fail(text):
    sys.exit(text)


def connect(port, protocol=2):
    options = {"host": host, "port": port, "socket_timeout": PATIENCE, "protocol": protocol}
    return redis.RedisCluster(**options) if kind == "cluster" else redis.Redis(**options)


def listen(client, patterns, sharded):
    """A subscription that is confirmed."""
    clients.append(client)
    pubsub = client.pubsub()
    confirmed = "subscribe"
    if sharded:
        confirmed = "ssubscribe"
        pubsub.ssubscribe("news")
    elif patterns:
        confirmed = "psubscribe"
        pubsub.psubscribe("n*s")
    else:
        pubsub.subscribe("news")
    got = next_of(pubsub, sharded)
    if got["type"] != confirmed or got["data"] != 1:
        fail(f"not confirmed: {got!r}")
    return pubsub


def next_of(pubsub, sharded):
    for _ in range(PATIENCE):
        got = pubsub.get_sharded_message(timeout=1) if sharded and kind == "cluster" else pubsub.get_message(timeout=1)
        if got is not None:
            return got
    fail("no message came")


sharded = kind == "cluster"
# A client that nobody holds any more closes the connections of its subscriptions.
clients = []
listeners = []
for port in ports:
    for protocol in (2, 3):
        for patterns in (False,) if sharded else (False, True):
            listeners.append((listen(connect(port, protocol), patterns, sharded), patterns))


def publish(port):
    client = connect(port)
    for number in range(messages):
        text = f"{port}:{number}"
        count = client.spublish("news", text) if sharded else client.publish("news", text)
        if count != len(listeners):
            fail(f"{count} of {len(listeners)} subscribers received {text}")


threads = [threading.Thread(target=publish, args=(port,)) for port in ports]
for thread in threads:
    thread.start()
for pubsub, patterns in listeners:
    expected = {str(port): 0 for port in ports}
    for _ in range(messages * len(ports)):
        got = next_of(pubsub, sharded)
        wanted = "smessage" if sharded else "pmessage" if patterns else "message"
        if got["type"] != wanted or got["channel"] != b"news":
            fail(f"not a message: {got!r}")
        port, number = got["data"].decode().split(":")
        if int(number) != expected[port]:
            fail(f"{got!r} where number {expected[port]} of {port} comes next")
        expected[port] += 1
for thread in threads:
    thread.join()

client = connect(ports[0])
if not sharded:
    if client.pubsub_channels() != [b"news"] or client.pubsub_numpat() != 1:
        fail(f"PUBSUB: {client.pubsub_channels()!r}, {client.pubsub_numpat()!r}")
    if client.pubsub_numsub("news", "other") != [(b"news", len(listeners) // 2), (b"other", 0)]:
        fail(f"NUMSUB: {client.pubsub_numsub('news', 'other')!r}")
gone, patterns = listeners.pop()
gone.close()
for _ in range(PATIENCE * 100):
    count = client.spublish("news", "last") if sharded else client.publish("news", "last")
    if count == len(listeners):
        break
    threading.Event().wait(0.01)
else:
    fail(f"{count} are counted where {len(listeners)} are left")
print(f"{messages * len(ports)} messages to {len(listeners) + 1} subscribers")
