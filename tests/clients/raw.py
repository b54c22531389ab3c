"""Sends the bytes of a file (hexadecimal) to host:port and prints `closed|open HEX` of all that came back."""
import socket
import sys

host, port, path, then_close, quiet_ms = sys.argv[1:6]
data = bytes.fromhex(open(path).read())
sock = socket.create_connection((host, int(port)), timeout=10)
back = bytearray()
closed = "open"
try:
    sock.sendall(data)
    if then_close == "1":
        sock.shutdown(socket.SHUT_WR)
    sock.settimeout(int(quiet_ms) / 1000)
    while True:
        piece = sock.recv(65536)
        if not piece:
            closed = "closed"
            break
        back += piece
except (TimeoutError, socket.timeout):
    pass
except (ConnectionResetError, BrokenPipeError):
    closed = "closed"
print(closed, back.hex() or "-")
