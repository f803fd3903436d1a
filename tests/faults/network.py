"""Networks that are slow, lose packets, refuse or swallow them. Needs root, iproute2 and iptables."""

import os
import shutil
import subprocess
import threading

import grpc

from client_processes import ClientProcesses
from harness import FaultTest, eventually, generate_request

HOST, SERVER = "198.18.77.1", "198.18.77.2"  # of the range for tests of devices
NAME = f"asv{os.getpid()}"  # of the namespace, and of the cable's end on this side


def command(line):
    return subprocess.run(line.split(), check=True, capture_output=True, text=True)


def inside(line):
    return command(f"ip netns exec {NAME} {line}")


class NetworkTest(FaultTest):
    """The server has a network namespace of its own, at the other end of a cable."""

    STREAMS, TOKENS = 16, 40

    def setUp(self):
        super().setUp()
        self.needs_long()
        for tool in ("ip", "tc", "iptables"):
            if shutil.which(tool) is None:
                self.skipTest(f"no {tool}: tools/install-deps faults")
        try:
            command(f"ip netns add {NAME}")
        except subprocess.CalledProcessError as error:
            self.skipTest(f"no network namespace can be made here: {error.stderr.strip()}")
        self.addCleanup(command, f"ip netns delete {NAME}")
        command(f"ip link add {NAME} type veth peer name cable netns {NAME}")
        self.addCleanup(command, f"ip link delete {NAME}")  # a namespace may outlive its name
        command(f"ip address add {HOST}/30 dev {NAME}")
        command(f"ip link set {NAME} up")
        inside(f"ip address add {SERVER}/30 dev cable")
        inside("ip link set cable up")
        inside("ip link set lo up")

    def tearDown(self):
        super().tearDown()
        self.doCleanups()

    def start(self, *options):
        return super().start(
            "server.insecure=true",
            f"metrics.address={SERVER}:0",
            *options,
            address=f"{SERVER}:0",
            wrapper=("ip", "netns", "exec", NAME),
        )

    def texts(self, server):
        """What 16 calls at once give; a code for each that failed."""
        answers = [None] * self.STREAMS

        def call(i):
            request = generate_request(f"stream {i}", self.TOKENS, seed=i, logprobs=5)
            try:
                answers[i] = "".join(m.text for m in server.stub.Generate(request, timeout=110))
            except grpc.RpcError as error:
                answers[i] = error.code()

        threads = [threading.Thread(target=call, args=(i,)) for i in range(self.STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def test_a_slow_link(self):
        """A link of 256 kbit/s (tbf)."""
        server, books = self.start("server.stream_queue_messages=4000")
        before = self.texts(server)
        inside("tc qdisc add dev cable root tbf rate 256kbit burst 16kb latency 2s")
        self.record(f"{self.STREAMS} streams with log-probabilities", "nothing")
        self.assertEqual(self.texts(server), before)
        inside("tc qdisc delete dev cable root")
        self.expect_unharmed(server, books)

    def test_readers_behind_a_slow_link(self):
        """Readers behind 128 kbit/s, with the queue of a stream that is short."""
        server, books = self.start("server.stream_queue_messages=64")
        inside("tc qdisc add dev cable root tbf rate 128kbit burst 8kb latency 2s")
        clients = self.clients_of(server)
        clients.wait_until_streaming()
        # Each gets what the link carries, then RESOURCE_EXHAUSTED: nothing waits for the link.
        self.expect_nothing_held(server)
        inside("tc qdisc delete dev cable root")
        clients.wait()
        codes = {code for code, _ in clients.ended}
        self.record(f"{clients.TOTAL} streams of 3,900 tokens", f"their ends: {sorted(codes)}")
        # CANCELLED are those whose status was stuck behind what they had not read.
        self.assertLessEqual(codes, {"OK", "RESOURCE_EXHAUSTED", "CANCELLED"})
        self.assertIn("RESOURCE_EXHAUSTED", codes)
        self.expect_unharmed(server, books)

    def test_lost_packets(self):
        """A packet in five is lost, in each direction."""
        server, books = self.start("server.stream_queue_messages=4000")
        before = self.texts(server)
        lose = "INPUT -p tcp -m statistic --mode random --probability 0.2 -j DROP"
        inside(f"iptables -A {lose}")
        command(f"iptables -A {lose.replace('INPUT', f'INPUT -i {NAME}')}")
        try:
            self.record(f"{self.STREAMS} streams", "nothing")
            self.assertEqual(self.texts(server), before)
        finally:
            inside(f"iptables -D {lose}")
            command(f"iptables -D {lose.replace('INPUT', f'INPUT -i {NAME}')}")
        self.expect_unharmed(server, books)

    def test_a_reset(self):
        """Every connection is reset in the middle of 64 streams."""
        server, books = self.start()
        clients = self.clients_of(server)
        clients.wait_until_streaming()
        port = server.address.rsplit(":", 1)[1]
        reset = f"INPUT -p tcp --dport {port} -j REJECT --reject-with tcp-reset"
        inside(f"iptables -A {reset}")
        clients.wait()
        codes = {code for code, _ in clients.ended}
        self.record(f"{clients.TOTAL} streams", f"all streams, {'/'.join(sorted(codes))}")
        self.assertEqual(codes, {"UNAVAILABLE"})
        inside(f"iptables -D {reset}")
        self.expect_unharmed(server, books)

    def test_a_silent_network(self):
        """The cable swallows everything in the middle of 64 streams."""
        server, books = self.start()
        clients = self.clients_of(server)
        clients.wait_until_streaming()
        port = server.address.rsplit(":", 1)[1]
        for chain, side in (("INPUT", "--dport"), ("OUTPUT", "--sport")):
            inside(f"iptables -A {chain} -p tcp {side} {port} -j DROP")
        # Queues fill up, or the text ends; then nothing is held for who does not answer.
        self.expect_nothing_held(server)
        # What was sent may be unacknowledged for 80 s.
        gone = eventually(lambda: server.metric("open_calls") == 0, 120)
        self.assertTrue(gone, server.metric("open_calls"))
        clients.kill()
        self.record(f"{clients.TOTAL} streams", "all streams; nothing is held for them")
        inside("iptables -F")
        server.connect()
        self.expect_unharmed(server, books)

    def clients_of(self, server):
        clients = ClientProcesses(server, max_tokens=3900)
        self.addCleanup(lambda: [process.kill() for process in clients.processes])
        return clients
