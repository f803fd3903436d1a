"""What the fault tests share: the real server, its books before and after a fault, the table."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import grpc
import grpc_tools
from grpc_tools import protoc

# Bounds are for a busy machine and a build with sanitizers; a healthy server needs a hundredth.
PATIENCE = 120


class Setup:
    """Paths from the command line, and what follows from them."""

    binary = writer = model = pb = rpc = None
    long = False
    sanitized = False  # the address sanitizer takes memory of its own, and gives none back
    directory = tempfile.TemporaryDirectory()
    rows = []  # of the table


def prepare(binary, writer, proto_root, model=None):
    out = Setup.directory.name
    well_known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    arguments = ["protoc", f"-I{proto_root}", f"-I{well_known}", f"--python_out={out}"]
    files = ["asymserve/v1/inference.proto"]
    if protoc.main(arguments + [f"--grpc_python_out={out}"] + files) != 0:
        raise RuntimeError("the protos do not compile")
    sys.path.insert(0, out)
    from asymserve.v1 import inference_pb2, inference_pb2_grpc

    with open(binary, "rb") as file:
        Setup.sanitized = b"__asan_init" in file.read()
    Setup.binary, Setup.writer = binary, writer
    Setup.pb, Setup.rpc = inference_pb2, inference_pb2_grpc
    Setup.model = model or toy_model("slow")


def toy_model(kind):
    """The path of a new model of that kind: see tests/server/write_toy_model.cc."""
    path = os.path.join(Setup.directory.name, f"{kind}.gguf")
    subprocess.run([Setup.writer, path, kind], check=True)
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def generate_request(prompt, max_tokens, seed=1, **fields):
    pb = Setup.pb
    return pb.GenerateRequest(
        prompt=prompt,
        sampling=pb.Sampling(seed=seed),
        stop=pb.Stop(max_tokens=max_tokens, ignore_eos=True),
        **fields,
    )


class Server:
    """asymserve on a model of about a millisecond a step."""

    def __init__(self, *options, model=None, limits=(), wrapper=(), address=None, stderr=None):
        """`limits`: (resource, soft limit) of the process. `wrapper`: a command that runs the
        server. `stderr`: a descriptor that takes the log; then `address` must be given."""
        self.metrics_address = f"127.0.0.1:{free_port()}" if stderr is not None else "127.0.0.1:0"
        arguments = [*wrapper, Setup.binary, "serve", "--model", model or Setup.model]
        for option in (
            f"server.address={address or '127.0.0.1:0'}",
            f"metrics.address={self.metrics_address}",
            "engine.threads=1",
            "engine.kv_memory_bytes=64MiB",
            *options,
        ):
            arguments += ["--set", option]

        def lower():
            for which, soft in limits:
                resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))

        self.address = address
        self.lines = []
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            arguments,
            stderr=subprocess.PIPE if stderr is None else stderr,
            errors="replace" if stderr is None else None,
            preexec_fn=lower if limits else None,
        )
        self.reader = None
        if stderr is None:
            self.reader = threading.Thread(target=self._read_log, daemon=True)
            self.reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def log(self):
        return "".join(self.lines)

    def log_value(self, event, key):
        found = re.search(rf" {event} .*?\b{key}=(\S+)", self.log())
        return found.group(1) if found else None

    def wait_until_serving(self):
        """Seconds from the start."""
        if self.reader is None:
            ready = grpc.channel_ready_future(grpc.insecure_channel(self.address))
            ready.result(timeout=PATIENCE)
            ok = eventually(lambda: b"asymserve_kv_pages" in self._scrape())
        else:
            there = lambda: self.log_value("serving", "address") or self.process.poll() is not None
            ok = eventually(there) and self.process.poll() is None
            self.address = self.log_value("serving", "address")
            self.metrics_address = self.log_value("metrics", "address")
        if not ok:
            raise AssertionError("the server does not serve:\n" + self.log())
        self.connect()
        return time.monotonic() - self.started

    def connect(self):
        """With a new connection."""
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.stub = Setup.rpc.InferenceStub(self.channel)

    def unary(self, prompt, max_tokens, seed=1, timeout=PATIENCE, **fields):
        """The text of the only sequence; comes back as it is told to while the queue is full."""
        deadline = time.monotonic() + timeout
        while True:
            request = generate_request(prompt, max_tokens, seed, **fields)
            try:
                return self.stub.GenerateUnary(request, timeout=timeout).sequences[0].text
            except grpc.RpcError as error:
                full = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                if not full or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _scrape(self):
        try:
            url = f"http://{self.metrics_address}/metrics"
            return urllib.request.urlopen(url, timeout=PATIENCE).read()
        except OSError:
            return b""

    def metrics(self):
        """Sample with its labels -> value."""
        samples = {}
        for line in self._scrape().decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name):
        return self.metrics().get("asymserve_" + name, 0)

    def held(self):
        """What the server holds for calls, 0 each when there are none; None: it does not say.

        What the prefix cache keeps of finished prompts is not among it: it is nobody's.
        """
        metrics = self.metrics()
        names = ("open_calls", "sequences_running", "sequences_waiting")
        names += ('kv_pages{state="used"}', 'kv_slabs{state="used"}')
        held = {name: metrics.get("asymserve_" + name) for name in names}
        records = Books.rows(metrics, "kv_used_bytes").values()
        held["kv_used_bytes"] = sum(records) if records else None
        return held

    def threads(self):
        """Their names. Without gRPC's timer threads: when many timers fire at once it starts more, and keeps them."""
        names = []
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with contextlib.suppress(OSError):  # it has ended
                with open(f"/proc/{self.process.pid}/task/{task}/comm") as comm:
                    names.append(comm.read().strip())
        return sorted(name for name in names if not name.startswith("grpc_global_tim"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def status_bytes(self, key):
        """VmRSS, VmSize, ... of /proc."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
        raise KeyError(key)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def wait(self, seconds=PATIENCE):
        """Exit status, minus the signal that ended it."""
        status = self.process.wait(timeout=seconds)
        if self.reader is not None:
            self.reader.join(timeout=seconds)
        return status

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        self.wait()
        if self.reader is not None:
            self.process.stderr.close()


class Books:
    """What a server is before a fault, to be again after it."""

    PROMPT, TOKENS = "the text before the fault " * 12, 24  # more than a chunk: cached

    def __init__(self, server):
        server.unary(self.PROMPT, self.TOKENS)  # the pools of gRPC have their threads
        self.text = server.unary(self.PROMPT, self.TOKENS)
        self.threads, self.descriptors = server.threads(), server.descriptors()
        self.mapped = self.mapped_bytes(server.metrics())
        self.resident = server.status_bytes("VmRSS")

    @classmethod
    def mapped_bytes(cls, metrics):
        """By class of memory; not of `runtime`, of which the server says what is resident."""
        rows = cls.rows(metrics, "memory_measured_bytes")
        return {key: value for key, value in rows.items() if 'class="runtime"' not in key}

    @staticmethod
    def rows(metrics, name):
        start = f"asymserve_{name}{{"
        return {key: value for key, value in metrics.items() if key.startswith(start)}


class FaultTest(unittest.TestCase):
    """A test states its fault in one line (`fault`), causes it, and checks the books."""

    def setUp(self):
        self.load = self.lost = ""
        self.servers = []

    def tearDown(self):
        for server in self.servers:
            server.stop()

    def launch(self, *options, **how):
        server = Server(*options, **how)
        self.servers.append(server)
        return server

    def start(self, *options, **how):
        server = self.launch(*options, **how)
        server.wait_until_serving()
        return server, Books(server)

    def record(self, load, lost):
        """What the table says of this test."""
        self.load, self.lost = load, lost

    def needs_long(self):
        if not Setup.long:
            self.skipTest("takes long: tests/faults/run has it")

    def needs_plain_build(self):
        if Setup.sanitized:
            self.skipTest("the address sanitizer has reserved all address space")

    def expect_idle(self, server):
        idle = lambda: all(value == 0 for value in server.held().values())
        self.assertTrue(eventually(idle), server.held())

    def expect_nothing_held(self, server):
        """By the engine; the ends of calls may be stuck on their way to the clients."""

        def free():
            held = server.held()
            del held["open_calls"]
            return all(value == 0 for value in held.values())

        self.assertTrue(eventually(free), server.held())

    def expect_unharmed(self, server, books):
        """The next request is right, nothing is held, and the memory is what was planned."""
        self.assertIsNone(server.process.poll(), server.log()[-2000:])
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        self.expect_idle(server)
        # gRPC's other pools grow to a few threads per core and keep them.
        self.assertTrue(
            eventually(lambda: server.descriptors() <= books.descriptors),
            f"{server.descriptors()} descriptors, before {books.descriptors}",
        )
        self.assertTrue(
            eventually(lambda: len(server.threads()) <= len(books.threads) + 16),
            f"threads {server.threads()}, before {books.threads}",
        )
        time.sleep(5.1)  # the server reads the kernel's books every five seconds
        self.expect_planned_memory(server, books)

    def expect_planned_memory(self, server, books):
        metrics = server.metrics()
        planned = Books.rows(metrics, "memory_planned_bytes")
        self.assertEqual(len(planned), 5)
        for sample, bytes_planned in planned.items():
            measured = metrics[sample.replace("planned", "measured")]
            if 'class="runtime"' in sample:
                if not Setup.sanitized:
                    self.assertLessEqual(measured, bytes_planned, sample)
            else:
                self.assertAlmostEqual(measured, bytes_planned, delta=0.01 * bytes_planned)
        # Nothing of it is mapped, or given back, after the start.
        self.assertEqual(Books.mapped_bytes(metrics), books.mapped)
        # What is resident grows with the pages of the KV cache that were written, and with the
        # heap, which keeps what a burst took; what is over the plan it gives back in five seconds.
        if not Setup.sanitized:
            most = sum(planned.values())
            self.assertTrue(
                eventually(lambda: server.status_bytes("VmRSS") <= most, 15),
                f"{server.status_bytes('VmRSS')} bytes resident, before {books.resident}, "
                f"planned {most}",
            )


class TableResult(unittest.TextTestResult):
    """Keeps a row of the table for each test."""

    def _row(self, test, verdict):
        title = (test.shortDescription() or str(test)).rstrip(".")
        loads = (getattr(test, "load", ""), getattr(test, "lost", ""))
        Setup.rows.append((title, *loads, verdict))

    def addSuccess(self, test):
        super().addSuccess(test)
        self._row(test, "holds")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._row(test, "FAILS")

    def addError(self, test, err):
        super().addError(test, err)
        self._row(test, "FAILS (error)")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._row(test, f"skipped: {reason}")


def print_table():
    rows = [("fault", "load", "what was lost", "verdict"), *Setup.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
