"""Clients that die, do not read, come by the thousand, or have no time."""

import collections
import functools
import random
import struct
import threading

import grpc

from client_processes import ClientProcesses
from harness import PATIENCE, FaultTest, Setup, eventually, generate_request
from http2 import Connection

KINDS = 16  # of requests whose answers are known


class ClientsTest(FaultTest):
    def test_killed_clients(self):
        """kill -9 of clients in the middle of 64 streams."""
        server, books = self.start()
        clients = ClientProcesses(server, max_tokens=3900)
        clients.wait_until_streaming()
        self.assertGreater(server.metric('kv_pages{state="used"}'), 0)
        lost = clients.kill()
        self.record("4 processes of 16 streams", f"{lost} streams of the killed clients")
        self.assertGreater(lost, 0)
        self.expect_unharmed(server, books)
        self.assertEqual(server.metric('sequences_finished_total{reason="cancelled"}'), lost)

    def test_a_client_that_never_reads(self):
        """Clients that never read."""
        server, books = self.start("server.stream_queue_messages=64")
        request = generate_request("unread", 3900, logprobs=20).SerializeToString()
        connections = []
        for _ in range(8):
            connection = Connection(server.address, receive_bytes=4096)
            self.assertTrue(connection.call(1, "Generate", request))
            connections.append(connection)
        self.record("8 streams whose client reads nothing", "those streams, RESOURCE_EXHAUSTED")
        # Others do not notice.
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        self.assertTrue(eventually(lambda: server.metric("slow_readers_total") == 8))
        self.expect_idle(server)  # the calls end although nobody takes their status
        for connection in connections:
            connection.close()
        self.expect_unharmed(server, books)

    def test_a_thousand_connections(self):
        """1,000 connections with a call each."""
        server, books = self.start("engine.max_waiting=128")
        count = 1000
        right = [server.unary(f"connection {kind}", 4, seed=kind) for kind in range(KINDS)]
        connections = [Connection(server.address) for _ in range(count)]
        for i, connection in enumerate(connections):
            kind = i % KINDS
            request = generate_request(f"connection {kind}", 4, seed=kind).SerializeToString()
            self.assertTrue(connection.call(1, "GenerateUnary", request))
        served = refused = 0
        for i, connection in enumerate(connections):
            body = connection.answer(1, seconds=60)
            self.assertIsNotNone(body, "a call without an answer")
            if not body:
                refused += 1  # only trailers: RESOURCE_EXHAUSTED
                continue
            answer = Setup.pb.GenerateUnaryResponse.FromString(body[5:])
            self.assertEqual(struct.unpack(">BI", body[:5]), (0, len(body) - 5))
            self.assertEqual(answer.sequences[0].final.usage.generated_tokens, 4)
            self.assertEqual(answer.sequences[0].text, right[i % KINDS])
            served += 1
        self.record(f"{count} connections, queue of 128", f"{refused} calls refused at once")
        self.assertGreater(served, 0)
        self.assertEqual(server.metric('rejections_total{reason="queue_full"}'), refused)
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        for connection in connections:
            connection.close()
        self.expect_unharmed(server, books)

    def test_a_storm_of_deadlines(self):
        """Deadline storm."""
        server, books = self.start("engine.max_waiting=1000")
        asked = [("too late " * (1 + 5 * kind // 2), 10 + 12 * kind, kind) for kind in range(KINDS)]
        right = [server.unary(*request) for request in asked]
        codes, wrong, patient = collections.Counter(), [], []
        count, done = 600, threading.Semaphore(0)
        numbers = random.Random(5)

        def ended(kind, call):
            codes[call.code()] += 1
            if call.code() is grpc.StatusCode.OK:
                text = call.result().sequences[0].text
                if text != right[kind]:
                    wrong.append((kind, text))
            done.release()

        for i in range(count):
            kind = i % KINDS
            has_time = i % (KINDS + 1) == 0  # some of every kind
            timeout = PATIENCE if has_time else numbers.uniform(0, 2)
            call = server.stub.GenerateUnary.future(generate_request(*asked[kind]), timeout=timeout)
            if has_time:
                patient.append(call)
            call.add_done_callback(functools.partial(ended, kind))
        for _ in range(count):
            self.assertTrue(done.acquire(timeout=PATIENCE), codes)
        late = codes[grpc.StatusCode.DEADLINE_EXCEEDED]
        self.record(
            f"{count} calls, {len(patient)} with time, deadlines of 0 to 2 s for the others",
            f"{late} calls, DEADLINE_EXCEEDED",
        )
        self.assertGreater(late, 0)
        self.assertLessEqual(
            set(codes), {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}, codes
        )
        self.assertEqual({call.code() for call in patient}, {grpc.StatusCode.OK})
        self.assertEqual(wrong, [])
        self.expect_unharmed(server, books)
