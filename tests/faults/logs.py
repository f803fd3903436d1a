"""A log that cannot be written."""

import fcntl
import os
import subprocess
import tempfile

from harness import FaultTest, free_port


class LogsTest(FaultTest):
    def start_with(self, descriptor):
        return self.start(address=f"127.0.0.1:{free_port()}", stderr=descriptor)

    def test_no_space_for_the_log(self):
        """Disk full for logs: /dev/full."""
        with open("/dev/full", "wb", buffering=0) as full:
            server, books = self.start_with(full.fileno())
        for _ in range(50):
            server.unary("x", 1)
        self.record("50 calls", "the log")
        self.expect_unharmed(server, books)

    def test_a_small_disk_for_the_log(self):
        """Disk full for logs: a tmpfs of 64 KiB fills up, then has room again."""
        self.needs_long()
        directory = tempfile.mkdtemp()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
            os.rmdir(directory)
            self.skipTest("a tmpfs cannot be mounted here: needs root")
        try:
            path = os.path.join(directory, "log")
            with open(path, "ab") as log:
                server, books = self.start_with(log.fileno())
            for _ in range(600):
                server.unary("x", 1)
            self.assertLessEqual(os.path.getsize(path), 65536)
            os.truncate(path, 0)
            server.unary("x", 1)
            with open(path, errors="replace") as log:
                text = log.read()
            self.assertIn("log_lines_lost", text)
            self.assertIn("method=GenerateUnary", text)
            self.record("600 calls", "lines of the log, which says how many")
            self.expect_unharmed(server, books)
            server.stop()
        finally:
            subprocess.run(["umount", "-l", directory], check=True)
            os.rmdir(directory)

    def test_a_log_that_nobody_reads(self):
        """The log's pipe is full, and nobody reads."""
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        server, books = self.start_with(writing)
        os.close(writing)
        for _ in range(50):
            server.unary("x", 1)
        self.expect_unharmed(server, books)
        self.record("50 calls, a pipe of 4 KiB", "lines of the log")
        os.close(reading)

    def test_a_log_whose_reader_is_gone(self):
        """The log's reader is gone."""
        reading, writing = os.pipe()
        server, books = self.start_with(writing)
        os.close(writing)
        os.close(reading)
        self.record("the other end of stderr closed", "the log")
        self.expect_unharmed(server, books)
