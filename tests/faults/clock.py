"""A wall clock that jumps, by libfaketime; the monotonic one does not."""

import glob
import os
import tempfile
import threading
import time

import grpc

from harness import FaultTest, eventually, generate_request

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class ClockTest(FaultTest):
    STREAMS, TOKENS = 32, 1500

    def setUp(self):
        super().setUp()
        self.needs_long()
        self.needs_plain_build()  # its runtime has to be loaded first
        libraries = glob.glob(LIBRARIES)
        if not libraries:
            self.skipTest("no libfaketime: tools/install-deps faults")
        self.file = tempfile.NamedTemporaryFile("w", suffix=".clock")
        self.addCleanup(self.file.close)
        self.set_clock("+0")
        self.wrapper = (
            "env",
            f"LD_PRELOAD={libraries[0]}",
            f"FAKETIME_TIMESTAMP_FILE={self.file.name}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME_NO_CACHE=1",
        )

    def set_clock(self, offset):
        with open(self.file.name + "~", "w") as file:
            file.write(offset + "\n")
        os.replace(self.file.name + "~", self.file.name)

    def test_jumps(self):
        """The wall clock jumps by a day, and back to the day before."""
        server, books = self.start("server.stream_queue_messages=4000", wrapper=self.wrapper)
        answers = [None] * self.STREAMS
        first = threading.Semaphore(0)

        def call(i):
            request = generate_request(f"stream {i}", self.TOKENS, seed=i)
            try:
                answers[i] = ""
                for message in server.stub.Generate(request, timeout=110):
                    if not answers[i]:
                        first.release()
                    answers[i] += message.text
            except grpc.RpcError as error:
                answers[i] = error.code()
                first.release()

        def round_of_calls(jumps):
            threads = [threading.Thread(target=call, args=(i,)) for i in range(self.STREAMS)]
            for thread in threads:
                thread.start()
            for _ in threads:
                first.acquire()
            for offset in jumps:
                self.set_clock(offset)
                time.sleep(0.3)
            for thread in threads:
                thread.join()
            return list(answers)

        before = round_of_calls([])
        self.assertTrue(all(isinstance(answer, str) for answer in before), before)
        self.assertEqual(round_of_calls(["+1d", "-1d", "+1d"]), before)
        # Deadlines are as long as they were.
        request = generate_request("late", 3900)
        with self.assertRaises(grpc.RpcError) as late:
            server.stub.GenerateUnary(request, timeout=0.4)
        self.assertEqual(late.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        log_dates = {line[:10] for line in server.lines if line[:2] == "20"}
        self.assertGreater(len(log_dates), 1, "the clock did not jump")
        self.record(f"{self.STREAMS} streams, deadlines of 110 s, 3 jumps", "nothing")
        for name, value in server.metrics().items():
            if "_seconds_sum" in name:
                self.assertTrue(0 <= value < 10_000, f"{name} {value}")
        self.set_clock("+0")
        self.assertTrue(eventually(lambda: server.metric("open_calls") == 0))
        self.expect_unharmed(server, books)
