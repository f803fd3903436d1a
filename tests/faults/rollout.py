"""Servers that are replaced one after the other under load, and connections that are replaced by age.

What happened is counted at the servers, in their logs (a line for each call, written before the client
can see its status): what a client's retries hide is seen there.
"""

import collections
import json
import re
import signal
import threading
import time

import grpc

from harness import FaultTest, PATIENCE, Setup, eventually, free_port, generate_request
from http2 import ACK, GOAWAY, SETTINGS, Connection, frame

BALANCED = {
    # As deploy/README.md tells clients to.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "asymserve.v1.Inference"},
}
RETRIED = {
    **BALANCED,
    "methodConfig": [
        {
            "name": [{"service": "asymserve.v1.Inference"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
# Picks servers that refuse, and shows each refusal.
NAIVE = {"loadBalancingConfig": [{"round_robin": {}}]}


def connect(addresses, service_config, retries):
    """A channel over a static list of addresses, as a headless Service's name resolves to."""
    return connect_to("ipv4:" + ",".join(addresses), service_config, retries)


def connect_to(target, service_config, retries):
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.service_config", json.dumps(service_config)),
            ("grpc.enable_retries", int(retries)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ],
    )


class Load:
    """Threads that call one method again and again over one channel until they are told to stop."""

    def __init__(self, channel, method, threads, tokens):
        self.stub = Setup.rpc.InferenceStub(channel)
        self.method, self.tokens = method, tokens
        self.codes = collections.Counter()
        self.wrong = []  # calls that ended otherwise than they may
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, index):
        count = 0
        while not self.stopped.is_set():
            count += 1
            tokens = self.tokens[(index + count) % len(self.tokens)]
            code, got = getattr(self, "_" + self.method)(f"{index} {count}", tokens)
            whole = code == grpc.StatusCode.OK and got == tokens
            refused = code == grpc.StatusCode.UNAVAILABLE and got == 0
            with self.lock:
                self.codes[code.name] += 1
                if not whole and not refused:
                    self.wrong.append((code.name, got, tokens))
            if refused:
                time.sleep(0.02)

    def _Generate(self, prompt, tokens):
        got = 0
        try:
            request = generate_request(prompt, tokens, return_token_ids=True)
            for message in self.stub.Generate(request, timeout=PATIENCE):
                got += len(message.tokens)
        except grpc.RpcError as error:
            return error.code(), got
        return grpc.StatusCode.OK, got

    def _GenerateUnary(self, prompt, tokens):
        try:
            request = generate_request(prompt, tokens)
            answer = self.stub.GenerateUnary(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code(), 0
        return grpc.StatusCode.OK, answer.sequences[0].final.usage.generated_tokens

    def _Tokenize(self, prompt, tokens):
        try:
            self.stub.Tokenize(Setup.pb.TokenizeRequest(text=prompt), timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code(), 0
        return grpc.StatusCode.OK, tokens

    def done(self):
        with self.lock:
            return self.codes["OK"]

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE)


def attempts(server):
    """Calls that the server ended, by (method, code), from its log."""
    found = re.findall(r" request method=(\w+) .*?\bcode=(\w+)", server.log())
    return collections.Counter(found)


def attempts_in_metrics(server):
    counts = collections.Counter()
    for sample, value in server.metrics().items():
        found = re.fullmatch(r'asymserve_requests_total\{method="(\w+)",code="(\w+)"\}', sample)
        if found and value:
            counts[found.groups()] += int(value)
    return counts


class RolloutTest(FaultTest):
    OPTIONS = ("server.drain_seconds=60", "server.stream_queue_messages=4000")

    def setUp(self):
        super().setUp()
        self.loads = []

    def tearDown(self):
        for load in self.loads:
            load.stop()
        super().tearDown()

    def start_load(self, *arguments):
        self.loads.append(Load(*arguments))
        return self.loads[-1]

    def launch_at(self, address):
        server = self.launch(*self.OPTIONS, address=address)
        server.wait_until_serving()
        return server

    def expect_progress(self, loads, calls):
        """Every load gets some more calls done."""
        before = [load.done() for load in loads]
        more = lambda: all(load.done() >= was + calls for load, was in zip(loads, before))
        self.assertTrue(eventually(more), [load.codes for load in loads])

    def test_a_rolling_restart_under_load(self):
        """Rolling restart of two servers behind round robin."""
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        running = [self.launch_at(address) for address in addresses]
        streams = self.start_load(connect(addresses, RETRIED, True), "Generate", 6, (20, 60, 300))
        unary = self.start_load(connect(addresses, RETRIED, True), "GenerateUnary", 4, (5, 40))
        # Refusals are seen by who does not try again.
        naive = self.start_load(connect(addresses, NAIVE, False), "Tokenize", 2, (1,))
        self.expect_progress(self.loads, 20)
        begin = time.monotonic()
        for _ in range(2):
            for i in range(2):
                running[i].kill(signal.SIGTERM)
                self.assertEqual(running[i].wait(), 0)
                self.expect_progress(self.loads, 20)  # at the other one
                running[i] = self.launch_at(addresses[i])
                back = running[i]
                self.assertTrue(
                    eventually(lambda: back.metric('requests_total{method="Generate",code="OK"}') > 5)
                )
        seconds = time.monotonic() - begin
        for load in self.loads:
            load.stop()
        for server in running:
            self.assertTrue(eventually(lambda: attempts(server) == attempts_in_metrics(server)))

        # Nobody was cut off: who got an answer got all of it, once.
        for load in self.loads:
            self.assertEqual(load.wrong, [])
        # Who tries again, as told, has lost nothing.
        self.assertEqual(set(streams.codes), {"OK"})
        self.assertEqual(set(unary.codes), {"OK"})
        books = sum((attempts(server) for server in self.servers), collections.Counter())
        for load in self.loads:
            # What a server accepted it finished, and a client has it.
            self.assertEqual(books[load.method, "OK"], load.done(), load.method)
        self.assertLessEqual({code for _, code in books}, {"OK", "UNAVAILABLE"}, books)
        refused = {method: books[method, "UNAVAILABLE"] for method, _ in books}
        # Of connections that end refusals are lost, too, so the client counts at least as many.
        self.assertLessEqual(refused["Tokenize"], naive.codes["UNAVAILABLE"])
        self.assertGreater(sum(refused.values()), 0)
        for server in self.servers[:4]:
            self.assertIn("finished_all=true", server.log())
        self.record(
            f"{sum(load.done() for load in self.loads)} calls, 4 restarts in {seconds:.0f} s",
            f"nothing; {sum(refused.values())} attempts refused, told so",
        )

    def test_streams_that_outlast_the_drain(self):
        """SIGTERM under streams longer than the drain budget."""
        budget = 1.5
        server, _ = self.start(f"server.drain_seconds={budget}", "server.stream_queue_messages=4000")
        ends = []

        def stream(index):
            request = generate_request(f"long {index}", 3900, return_token_ids=True)
            got = 0
            try:
                for message in server.stub.Generate(request):
                    if got == 0:
                        first.release()
                    got += len(message.tokens)
                code, details = grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
            ends.append((time.monotonic(), code, details, got))

        first = threading.Semaphore(0)
        count = 16
        threads = [threading.Thread(target=stream, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for _ in range(count):
            first.acquire()
        begin = time.monotonic()
        server.kill(signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(server.wait(), 0)
        self.assertEqual(len(ends), count)
        for at, code, details, got in ends:
            self.assertGreaterEqual(at - begin, budget)
            self.assertEqual(code, grpc.StatusCode.UNAVAILABLE)
            self.assertGreater(got, 0)
        # The last word has half a second: on a busy machine not everybody gets it.
        self.assertTrue(any("drain is over" in details for _, _, details, _ in ends), ends)
        self.assertEqual(attempts(server)["Generate", "UNAVAILABLE"], count)
        late = max(at for at, *_ in ends) - begin - budget
        self.record(f"{count} streams, drain_seconds {budget}", f"all, {late:.2f} s after it, told why")


class ConnectionAgeTest(FaultTest):
    AGE = 0.5
    OF_BOOKS = 2  # calls of harness.Books, on a connection of their own

    def peers(self, server):
        return set(re.findall(r"peer=(\S+)", server.log()))

    def test_connections_that_get_old(self):
        """Connections that reach server.max_connection_age_seconds under load."""
        server, _ = self.start(
            f"server.max_connection_age_seconds={self.AGE}", "server.stream_queue_messages=4000"
        )
        # Round robin over a static list would connect more often: it is resolved at once, again and
        # again, while a connection is replaced. A call may cross the server's final GOAWAY: the
        # server never sees it, the client sends it again. With grpc.enable_retries=0 it would end
        # UNAVAILABLE.
        channel = connect_to(server.address, {"methodConfig": RETRIED["methodConfig"]}, True)
        self.assertTrue(
            eventually(lambda: attempts(server)["GenerateUnary", "OK"] == self.OF_BOOKS)
        )
        before, books = len(self.peers(server)), attempts(server)
        long = threading.Thread(target=lambda: results.append(loader.long()), daemon=True)
        results = []

        class Long(Load):
            def long(self):
                return self._Generate("over many connections", 3900)

        begin = time.monotonic()
        loader = Long(channel, "GenerateUnary", 4, (1, 5, 20))
        long.start()
        time.sleep(6 * self.AGE)
        loader.stop()
        seconds = time.monotonic() - begin
        long.join(PATIENCE)
        self.assertEqual(results, [(grpc.StatusCode.OK, 3900)])
        self.assertEqual(loader.wrong, [])
        self.assertEqual(set(loader.codes), {"OK"})
        # Nor was any refused by the server or computed twice, which retries would hide.
        expected = {("GenerateUnary", "OK"): loader.done(), ("Generate", "OK"): 1}
        self.assertTrue(
            eventually(lambda: attempts(server) - books == expected),
            (attempts(server), loader.codes),
        )
        connections = len(self.peers(server)) - before
        self.assertGreaterEqual(connections, 3)
        # gRPC ends a connection up to a tenth before its age.
        self.assertLessEqual(connections, 2 + seconds / (0.9 * self.AGE))
        self.record(f"{loader.done()} calls and a long stream", f"nothing, over {connections} connections")
        self.expect_idle(server)

    def test_a_client_is_told(self):
        """A connection that gets old is told to go away (GOAWAY), and finishes its calls."""
        server, _ = self.start(f"server.max_connection_age_seconds={self.AGE}")
        begin = time.monotonic()
        connection = Connection(server.address)
        request = generate_request("to the end", 3900, n=4).SerializeToString()
        self.assertTrue(connection.call(1, "GenerateUnary", request))
        told = None
        for kind, flags, stream, _ in connection.frames(PATIENCE):
            if kind == SETTINGS and not flags & ACK:
                connection.send(frame(SETTINGS, ACK))
            if kind == GOAWAY and told is None:
                told = time.monotonic() - begin
            if stream == 1 and flags & 1:  # END_STREAM
                break
        ended = time.monotonic() - begin
        self.assertIsNotNone(told)
        self.assertGreaterEqual(told, 0.8 * self.AGE)
        self.assertGreater(ended, told)
        self.assertTrue(
            eventually(lambda: attempts(server)["GenerateUnary", "OK"] == self.OF_BOOKS + 1)
        )
        self.record("1 connection with a call", f"nothing; told after {told:.1f} s, ended at {ended:.1f} s")
        connection.close()

    def test_without_an_age(self):
        """Connections without a limit of their age."""
        server, _ = self.start("server.max_connection_age_seconds=0")
        connection = Connection(server.address)
        kinds = [kind for kind, _, _, _ in connection.frames(3)]
        self.assertTrue(kinds)
        self.assertNotIn(GOAWAY, kinds)
        self.assertFalse(connection.closed)
        self.record("1 idle connection", "nothing")
        connection.close()
