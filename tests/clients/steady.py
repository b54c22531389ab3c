"""redis-py against a store to which things are done: `steady.py plain|cluster HOST PORT STOPFILE`.

Writes, counts and reads back until STOPFILE exists, with the retries that redis-py makes by itself and no others; prints
`N operations, E errors`, and the first errors on standard error. A wrong value is an error, too."""
import os
import sys
import time

import redis

kind, host, port, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
options = {"host": host, "port": port, "socket_timeout": 20}
client = redis.RedisCluster(**options) if kind == "cluster" else redis.Redis(**options)
operations, errors = 0, []
counts, values = {}, {}
while not os.path.exists(stop):
    key = f"steady:{kind}:{operations % 97}"
    try:
        counts[key] = counts.get(key, 0) + 1
        counted = client.incr(key + ":n")
        if counted != counts[key]:
            errors.append(f"INCR {key}: {counted}, not {counts[key]}")
            counts[key] = counted
        values[key] = f"{operations}".encode()
        client.set(key, values[key])
        read = client.get(key)
        if read != values[key]:
            errors.append(f"GET {key}: {read}, not {values[key]}")
    except redis.RedisError as error:
        errors.append(f"{type(error).__name__}: {error}")
        counts.pop(key, None)
        counts[key] = int(client.get(key + ":n") or 0)
    operations += 3
    time.sleep(0.002)
for error in errors[:10]:
    print(error, file=sys.stderr)
print(f"{operations} operations, {len(errors)} errors")
