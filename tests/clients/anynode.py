"""Writes N keys through one endpoint and reads every one through each of the others:
`anynode.py N PASSWORD|- HOST:PORT [HOST:PORT …]`. Prints `N keys`."""
import sys

import redis

count, password = int(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2]
clients = []
for endpoint in sys.argv[3:]:
    host, port = endpoint.rsplit(":", 1)
    clients.append(redis.Redis(host=host, port=int(port), password=password, socket_timeout=20))
first = clients[0]
pipe = first.pipeline(transaction=False)
for i in range(count):
    pipe.set(f"any:{i}", i)
assert all(pipe.execute()), "a SET failed"
for client in clients:
    pipe = client.pipeline(transaction=False)
    for i in range(count):
        pipe.get(f"any:{i}")
    got = pipe.execute()
    wrong = [i for i in range(count) if got[i] != str(i).encode()]
    assert not wrong, f"{client}: {len(wrong)} keys wrong, first any:{wrong[0]}"
    assert client.dbsize() >= count, "DBSIZE of the whole store"
print(f"{count} keys")
