"""Calls of gRPC through the proxy, by the library that services use: the argument is the port of the interface."""

import json
import sys
import urllib.request
from concurrent import futures

import grpc

api = f"http://127.0.0.1:{sys.argv[1]}"
seen = []  # the attempts that the dependency heard of, as its methods


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def toxic(kind, stream="downstream", match=None, **attributes):
    wanted = {"type": kind, "stream": stream, "attributes": attributes}
    if match:
        wanted["match"] = match
    return json.loads(ask("POST", "/proxies/pay/toxics", wanted))["name"]


def remove(name):
    ask("DELETE", f"/proxies/pay/toxics/{name}")


class Payments(grpc.GenericRpcHandler):
    def service(self, details):
        def one(request, context):
            seen.append(details.method)
            context.set_trailing_metadata((("receipt", "r-7"),))
            return request + b" paid"

        def many(request, context):
            seen.append(details.method)
            for at in range(100):
                yield b"%d" % at * 100

        return {
            "/shop.Payments/Charge": grpc.unary_unary_rpc_method_handler(one),
            "/shop.Payments/Refund": grpc.unary_unary_rpc_method_handler(one),
            "/shop.Payments/History": grpc.unary_stream_rpc_method_handler(many),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Payments(),))
upstream = server.add_insecure_port("127.0.0.1:0")
server.start()
made = {"name": "pay", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{upstream}", "protocol": "http"}
listen = json.loads(ask("POST", "/proxies", made))["listen"]

# A client that tries again as services are told to: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.02s", "backoffMultiplier": 1}
config = {"methodConfig": [{"name": [{"service": "shop.Payments", "method": "Refund"}],
                            "retryPolicy": policy | {"retryableStatusCodes": ["UNAVAILABLE"]}}]}
channel = grpc.insecure_channel(listen, options=[("grpc.service_config", json.dumps(config))])
charge = channel.unary_unary("/shop.Payments/Charge")
refund = channel.unary_unary("/shop.Payments/Refund")
history = channel.unary_stream("/shop.Payments/History")


def failed(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it did not fail")


# As it is: an answer, its trailers, a stream, and a method that the dependency does not have.
answer, call = charge.with_call(b"7 EUR", timeout=60)
assert answer == b"7 EUR paid" and ("receipt", "r-7") in call.trailing_metadata()
assert len(list(history(b"", timeout=60))) == 100
unknown = channel.unary_unary("/shop.Payments/Steal")
assert failed(lambda: unknown(b"", timeout=60))[0] is grpc.StatusCode.UNIMPLEMENTED

# A status for one method; the dependency does not hear of it, and the others pass.
name = toxic("grpc_status", match={"grpc": "shop.Payments/Charge"}, status=8, message="out of credit: 100 %")
before = len(seen)
assert failed(lambda: charge(b"", timeout=60)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "out of credit: 100 %")
assert len(seen) == before
assert refund(b"7", timeout=60) == b"7 paid" and len(list(history(b"", timeout=60))) == 100
remove(name)
assert charge(b"7", timeout=60) == b"7 paid"

# What HTTP says with a status of its own is one of gRPC where calls are meant.
name = toxic("http_status", match={"method": "POST", "path": "/shop.Payments/Ch*"}, status=503, grpc=14, body="down")
assert failed(lambda: charge(b"", timeout=60)) == (grpc.StatusCode.UNAVAILABLE, "down")
remove(name)

# The first two attempts fail, the third succeeds, and the caller sees nothing of it.
before = len(seen)
name = toxic("grpc_status", match={"grpc": "shop.Payments/Refund", "first": 2}, status=14)
assert refund(b"7", timeout=60) == b"7 paid" and len(seen) == before + 1
remove(name)

# Later than the caller waits; a stream that breaks off.
name = toxic("http_delay", delay=600_000, match={"grpc": "shop.Payments/Charge"})
assert failed(lambda: charge(b"", timeout=0.5))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
remove(name)
name = toxic("http_body", truncate=500, match={"grpc": "shop.Payments/History"})
came = []
code, _ = failed(lambda: came.extend(history(b"", timeout=60)))
assert code is not grpc.StatusCode.DEADLINE_EXCEEDED and len(came) < 100, (code, len(came))
remove(name)
assert charge(b"7", timeout=60) == b"7 paid"

# What was seen of it.
channel.close()
lines = [json.loads(line) for line in ask("GET", "/squall/observations").splitlines()]
calls = [line for line in lines if line["kind"] == "request"]
assert all(call["version"] == "HTTP/2.0" and call["method"] == "POST" for call in calls), calls
retried = [call for call in calls if call["grpc_status"] == "14" and call["target"].endswith("/Refund")]
assert len(retried) == 2, calls
attempts = [dict(call["correlation"]).get("grpc-previous-rpc-attempts") for call in calls
            if call["target"].endswith("/Refund")]
assert attempts == [None, None, "1", "2"], attempts
assert {call["grpc_status"] for call in calls if call["target"].endswith("/Charge")} >= {"0", "8", "14"}
server.stop(None)
print("all well")
