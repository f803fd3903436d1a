"""Soak: mixed load for hours, and whether anything grows.

Usage: soak.py [--minutes M] [--pauses N] [--json FILE] [--model FILE]
               SERVER_BINARY TOY_MODEL_WRITER PROTO_ROOT
24 threads call without a pause: streams read to their end, cancelled, or given too little time;
exact ones, three sequences at once, chat, calls made by chance (random_calls.py), new connections,
clients that stop reading. N times (24), evenly, all stop, and once nothing runs the process is
measured: memory, descriptors, threads. The first quarter warms up; a line through the rest says
what grows. Fails when the memory of what the plan calls runtime, all but weights, KV cache, tables
and workspace (those are mapped at start and become resident as they are first used), grows by more
than its noise and 1 MiB over the run, when descriptors or threads end above every earlier pause,
when a text is wrong, and when the books of harness.py do not hold.
Runs in an environment with tests/server/requirements.txt.
"""

import argparse
import collections
import json
import random
import statistics
import sys
import threading
import time

import grpc

import harness
from harness import eventually, generate_request
from http2 import Connection
from random_calls import Chance, RandomCall

THREADS, PROMPTS = 24, 40
MIB = 1 << 20


def slope(points):
    """Of the line of least squares through (x, y), and its standard error."""
    xs, ys = zip(*points)
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((a - x) ** 2 for a in xs)
    value = sum((a - x) * (b - y) for a, b in points) / spread
    rest = sum((b - y - value * (a - x)) ** 2 for a, b in points)
    return value, (rest / max(1, len(points) - 2) / spread) ** 0.5


class Soak(harness.FaultTest):
    """A fault test for its books; not one that unittest finds."""

    def runTest(self):  # noqa: N802
        raise NotImplementedError

    def prepare(self):
        self.setUp()
        self.server, self.books = self.start(
            "kv.scheme=fit-2/2",
            "kv.quality.canary_rate=0.05",
            "engine.max_waiting=48",
            "server.max_connection_age_seconds=60",
            "server.stream_queue_messages=64",
        )
        requests = [self.request(i) for i in range(PROMPTS)]
        self.right = [self.answer(request) for request in requests]
        self.counts = collections.Counter()
        self.wrong = []
        self.lock = threading.Lock()

    @staticmethod
    def request(i):
        fields = {"kv_precision": harness.Setup.pb.KV_PRECISION_EXACT} if i % 4 == 0 else {}
        if i % 8 == 1:
            fields["n"] = 3
        # Eight beginnings: the prefix cache has something to find, and to give up.
        prompt = f"beginning {i % 8} " * (10 + i % 8 * 20) + f"and an end of its own, {i}"
        return generate_request(prompt, 20 + 7 * i, seed=i, **fields)

    def answer(self, request):
        answer = self.server.stub.GenerateUnary(request, timeout=harness.PATIENCE)
        return [sequence.text for sequence in answer.sequences]

    def connect(self):
        return grpc.insecure_channel(
            self.server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def count(self, what, code):
        with self.lock:
            self.counts[what, code.name if code else "-"] += 1

    def known_call(self, channel, rng):
        """A request whose answer is known: read to its end, cancelled, or given too little time."""
        i = rng.randrange(PROMPTS)
        stub = harness.Setup.rpc.InferenceStub(channel)
        way = rng.choice(["read", "read", "cancelled", "late"])
        timeout = rng.uniform(0.01, 0.5) if way == "late" else harness.PATIENCE
        texts = [""] * len(self.right[i])
        call = stub.Generate(self.request(i), timeout=timeout)
        try:
            for message in call:
                texts[message.index] += message.text
                if way == "cancelled" and rng.random() < 0.1:
                    call.cancel()
        except grpc.RpcError:
            pass
        whole = call.code() is grpc.StatusCode.OK
        same = texts == self.right[i] if whole else all(map(str.startswith, self.right[i], texts))
        if not same:
            with self.lock:
                self.wrong.append(f"request {i}, {way}, {call.code()}: {texts}")
        self.count(way, call.code())

    def random_call(self, channel, rng):
        call = RandomCall(Chance(rng.random()))
        code, details = call.run(channel)
        surprise = call.surprise(code, details)
        if surprise:
            with self.lock:
                self.wrong.append(f"{surprise}: {details}: {call}")
        self.count("by chance", code)

    def unread_call(self):
        """A client that asks, reads nothing, and is gone."""
        connection = Connection(self.server.address, receive_bytes=4096)
        connection.call(1, "Generate", generate_request("unread", 300).SerializeToString())
        time.sleep(0.5)
        connection.close()
        self.count("unread", None)

    def work(self, seed, end):
        rng = random.Random(seed)
        channel = self.connect()
        while time.monotonic() < end and not self.wrong:
            kind = rng.random()
            if kind < 0.03:
                channel.close()
                channel = self.connect()
            elif kind < 0.05:
                self.unread_call()
            elif kind < 0.4:
                self.random_call(channel, rng)
            else:
                self.known_call(channel, rng)
        channel.close()

    def call_for(self, seed, seconds):
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self.work, args=(seed + i, end)) for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def measure(self):
        """With nothing running, once what is over the plan was given back."""
        self.expect_idle(self.server)
        eventually(lambda: self.server.descriptors() <= self.books.descriptors, 10)
        time.sleep(6)
        runtime = sum(
            value
            for name, value in self.server.metrics().items()
            if name.startswith("asymserve_memory_measured_bytes") and 'class="runtime"' in name
        )
        return {
            "resident_bytes": self.server.status_bytes("VmRSS"),
            "anonymous_bytes": self.server.status_bytes("RssAnon"),
            "runtime_bytes": runtime,
            "descriptors": self.server.descriptors(),
            "threads": len(self.server.threads()),
        }


def judge(samples):
    """What grows, as lines and whether each is within bounds."""
    later = samples[len(samples) // 4 :]
    minutes = later[-1]["minute"] - later[0]["minute"]
    rows = []
    for name in ("resident_bytes", "anonymous_bytes", "runtime_bytes"):
        per_minute, error = slope([(s["minute"], s[name]) for s in later])
        grown, noise = per_minute * minutes, 3 * error * minutes
        text = f"{grown / MIB:+.2f} MiB, noise {noise / MIB:.2f}, of {later[-1][name] / MIB:.0f}"
        rows.append((name, text, name != "runtime_bytes" or grown <= max(noise, MIB)))
    for name in ("descriptors", "threads"):
        first, last = later[0][name], later[-1][name]
        rows.append((name, f"{first} -> {last}", last <= max(s[name] for s in later[:-1])))
    return minutes, rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--pauses", type=int, default=24)
    parser.add_argument("--json")
    parser.add_argument("--model")
    parser.add_argument("binary")
    parser.add_argument("writer")
    parser.add_argument("proto_root")
    arguments = parser.parse_args()
    harness.prepare(arguments.binary, arguments.writer, arguments.proto_root, arguments.model)
    soak = Soak()
    soak.prepare()
    begin, samples = time.monotonic(), []
    try:
        for pause in range(arguments.pauses):
            share = arguments.minutes * 60 * (pause + 1) / arguments.pauses
            soak.call_for(1000 * pause, max(1, begin + share - time.monotonic()))
            if soak.wrong:
                break
            samples.append({"minute": (time.monotonic() - begin) / 60, **soak.measure()})
            print(json.dumps(samples[-1]), flush=True)
        if not soak.wrong:
            soak.expect_unharmed(soak.server, soak.books)
    finally:
        soak.tearDown()
    for (what, code), count in sorted(soak.counts.items()):
        print(f"{what:10} {code:20} {count}")
    for line in soak.wrong[:5]:
        print("wrong:", line, file=sys.stderr)
    if soak.wrong:
        return 1
    minutes, rows = judge(samples)
    print(f"over the last {minutes:.0f} minutes:")
    for name, text, holds in rows:
        print(f"{name:16} {text:45} {'holds' if holds else 'FAILS'}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"minutes": arguments.minutes, "samples": samples, "calls": [
                {"what": what, "code": code, "count": count}
                for (what, code), count in sorted(soak.counts.items())
            ]}, file, indent=1)
    return 0 if all(holds for _, _, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
