"""What must be reached and what is the goal, as ratios of server CPU per operation unless said otherwise."""

# (test, pipeline, value bytes): (must, goal) of DKV / Valkey 9.1.
BESIDE_VALKEY = {
    ("get", 1, 64): (0.92, 0.80),
    ("get", 16, 64): (0.60, 0.50),
    ("get", 64, 64): (0.42, 0.35),
    ("get", 16, 1024): (0.80, 0.70),
    ("set", 1, 64): (0.90, 0.80),
    ("set", 16, 64): (0.60, 0.50),
    ("set", 64, 64): (0.36, 0.30),
    ("set", 16, 1024): (0.80, 0.70),
}
# pipeline: must of DKV / echo, for values of 64 bytes.
BESIDE_ECHO = {1: 1.2, 16: 2.2, 64: 3.5}
# CPU per key of MGET with 100 keys / of a pipelined GET.
MGET_PER_KEY = 1.0
# CPU per operation with 10,000 connections / with 50.
MANY_CONNECTIONS = 1.5
# A node on epoll / the same on io_uring, at pipeline 16.
EPOLL = 1.4
# Requests of a cluster client that were forwarded.
FORWARDED = 0
# Milliseconds from exec to the first PONG.
START_MS = 15.0
# Resident bytes for a key of 16 and a value of 64 bytes: (must, goal).
BYTES_PER_KEY = (106, 102)
# Pieces of work of a shard over 1 ms of its thread's CPU time, by its own counter.
STALLS = 0
# With one copy on another CPU / without copies, at pipeline 16.
COPIES = {"set": 1.6, "get": 1.05}
# Seconds of the leader's CPU for 200 MB of keys and values to a copy that has nothing.
RESYNC_200_MB_S = 1.0
# CPU time of the longest piece of a resync at the node that leads: a batch, with one slice walked and one or two written and framed.
RESYNC_SLICE_US = 200
# pipeline: client CPU per operation of dkv bench / redis-benchmark.
GENERATOR = {1: 0.8, 16: 0.6}
# Median latency at a tenth of the load / with one connection in a closed loop.
GENERATOR_P50 = 1.25
