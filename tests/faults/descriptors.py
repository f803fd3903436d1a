"""Too few descriptors."""

import resource
import time

import grpc

from harness import FaultTest, Setup, eventually
from http2 import Connection


class DescriptorsTest(FaultTest):
    def test_no_descriptors_left(self):
        """EMFILE: more connections than descriptors."""
        server, books = self.start()
        soft = books.descriptors + 40
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        connections = [Connection(server.address) for _ in range(200)]
        self.record(f"{soft} descriptors, 200 connections", "connections beyond the limit")
        # Whoever is connected goes on, and the metrics are there.
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        self.assertTrue(server.metrics())
        time.sleep(1)
        for connection in connections:
            connection.close()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (hard, hard))

        def a_new_client_is_served():
            with grpc.insecure_channel(
                server.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                stub = Setup.rpc.InferenceStub(channel)
                try:
                    return stub.GetModelInfo(Setup.pb.GetModelInfoRequest(), timeout=5) is not None
                except grpc.RpcError:
                    return False

        self.assertTrue(eventually(a_new_client_is_served), "the server accepts nobody any more")
        self.expect_unharmed(server, books)
