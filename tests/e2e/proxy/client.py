"""What a test suite does with toxiproxy-python: arguments are the port of the interface and an echo server."""

import socket
import sys
import time

from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

port, upstream = int(sys.argv[1]), sys.argv[2]
server = Toxiproxy()
server.update_api_consumer("127.0.0.1", port)


def connect(proxy):
    host, listen = proxy.listen.rsplit(":", 1)
    return socket.create_connection((host, int(listen)), timeout=20)


def ping(connection):
    begun = time.monotonic()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return time.monotonic() - begun


def refused(error, call):
    try:
        call()
    except error as caught:
        return str(caught)
    raise AssertionError("it was not refused")


assert server.running()
assert b"2.12.0" in server.version()
assert server.proxies() == {}

proxy = server.create(upstream=upstream, name="echo")
assert not proxy.listen.endswith(":0")
refused(ProxyExists, lambda: server.create(upstream=upstream, name="echo"))
assert server.get_proxy("echo").upstream == upstream
assert server.get_proxy("none") is None

connection = connect(proxy)
ping(connection)
proxy.add_toxic(type="latency", attributes={"latency": 60})
assert ping(connection) >= 0.06
toxic = proxy.get_toxic("latency_downstream")
assert (toxic.type, toxic.stream, toxic.toxicity) == ("latency", "downstream", 1.0)
assert toxic.attributes == {"latency": 60, "jitter": 0}
proxy.add_toxic(type="bandwidth", name="thin", stream="upstream", toxicity=0.5, attributes={"rate": 1000})
assert set(proxy.toxics()) == {"latency_downstream", "thin"}
assert "invalid toxic type" in refused(InvalidToxic, lambda: proxy.add_toxic(type="none"))
assert "toxic not found" in refused(NotFound, lambda: proxy.destroy_toxic("none"))
proxy.destroy_toxic("latency_downstream")
assert set(proxy.toxics()) == {"thin"}

with proxy.down():
    refused(OSError, lambda: connect(proxy))
    assert not server.get_proxy("echo").enabled
ping(connect(proxy))

proxy.disable()
server.reset()
assert server.get_proxy("echo").enabled and server.get_proxy("echo").toxics() == {}

made = server.populate([
    {"name": "echo", "upstream": upstream, "listen": proxy.listen},
    {"name": "second", "upstream": upstream, "listen": "localhost:0"},
])
assert [one.name for one in made] == ["second"]
ping(connect(made[0]))
server.destroy(made[0])
assert set(server.proxies()) == {"echo"}
server.destroy_all()
assert server.proxies() == {}
print("all well")
