"""Calls of gRPC to a dependency that is out, by the library that services use: `serve ADDRESS`, or `fail ADDRESS` and
`work ADDRESS` for a caller that expects it to fail, or to work."""

import sys
from concurrent import futures

import grpc

what, address = sys.argv[1:]


class Payments(grpc.GenericRpcHandler):
    def service(self, details):
        def one(request, context):
            return request + b" paid"

        def many(request, context):
            for at in range(100):
                yield b"%d" % at * 100

        return {
            "/shop.Payments/Charge": grpc.unary_unary_rpc_method_handler(one),
            "/shop.Payments/Refund": grpc.unary_unary_rpc_method_handler(one),
            "/shop.Payments/History": grpc.unary_stream_rpc_method_handler(many),
        }.get(details.method)


if what == "serve":
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Payments(),))
    assert server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()

channel = grpc.insecure_channel(address)
charge = channel.unary_unary("/shop.Payments/Charge")
refund = channel.unary_unary("/shop.Payments/Refund")
history = channel.unary_stream("/shop.Payments/History")
if what == "fail":
    for _ in range(3):
        try:
            charge(b"7", timeout=60)
        except grpc.RpcError as error:
            said = error.code(), error.details()
            assert said == (grpc.StatusCode.RESOURCE_EXHAUSTED, "out of credit"), said
        else:
            raise AssertionError("it did not fail")
else:
    assert charge(b"7", timeout=60) == b"7 paid"
assert refund(b"7", timeout=60) == b"7 paid"
assert len(list(history(b"", timeout=60))) == 100
channel.close()
print("all well")
