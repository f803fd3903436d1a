"""Fuzzes the real server with calls made by chance, from many threads, and checks it after each round.

Usage: fuzz_calls.py [--minutes M] [--seed S] [--model FILE] SERVER_BINARY TOY_MODEL_WRITER PROTO_ROOT
A call may end as the protocol says (never INTERNAL or UNKNOWN), INVALID_ARGUMENT names the field, and after each
round of 1,000 calls, at least one, the books of harness.py hold. Prints calls by method and code; exit status 1
with the call that surprised. Runs in an environment with tests/server/requirements.txt.
"""

import argparse
import collections
import sys
import threading
import time

import grpc

import harness
from random_calls import Chance, RandomCall

ROUND, THREADS = 1000, 16


class Fuzzing(harness.FaultTest):
    """A fault test for its books; not one that unittest finds."""

    def runTest(self):  # noqa: N802
        raise NotImplementedError

    def prepare(self):
        self.setUp()
        self.server, self.books = self.start("engine.max_waiting=64", "kv.scheme=fit-2/2")
        self.counts = collections.Counter()
        self.surprises = []

    def round(self, first_seed):
        numbers = iter(range(first_seed, first_seed + ROUND))
        lock = threading.Lock()

        def work():
            channel = grpc.insecure_channel(
                self.server.address, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None or self.surprises:
                    break
                call = RandomCall(Chance(number))
                code, details = call.run(channel)
                surprise = call.surprise(code, details)
                with lock:
                    self.counts[call.method, code.name] += 1
                    if surprise:
                        self.surprises.append(f"{surprise}: {details}\nseed {number}: {call}")
            channel.close()

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model")
    parser.add_argument("binary")
    parser.add_argument("writer")
    parser.add_argument("proto_root")
    arguments = parser.parse_args()
    harness.prepare(arguments.binary, arguments.writer, arguments.proto_root, arguments.model)
    fuzzing = Fuzzing()
    fuzzing.prepare()
    end = time.monotonic() + 60 * arguments.minutes
    seed = arguments.seed
    try:
        while not fuzzing.surprises:
            fuzzing.round(seed)
            seed += ROUND
            fuzzing.expect_unharmed(fuzzing.server, fuzzing.books)
            if time.monotonic() > end:
                break
    finally:
        fuzzing.tearDown()
        for (method, code), count in sorted(fuzzing.counts.items()):
            print(f"{method:14} {code:20} {count}")
        print(f"{sum(fuzzing.counts.values())} calls, seeds {arguments.seed} to {seed - 1}")
    for surprise in fuzzing.surprises:
        print(surprise, file=sys.stderr)
    return 1 if fuzzing.surprises else 0


if __name__ == "__main__":
    sys.exit(main())
