"""Client processes that stream from a server, to be killed or to see what happens to it."""

import os
import subprocess
import sys

from harness import Setup

PROGRAM = os.path.join(os.path.dirname(__file__), "streaming_client.py")


class ClientProcesses:
    """64 streams, 16 in each of 4 processes."""

    PROCESSES, STREAMS = 4, 16
    TOTAL = PROCESSES * STREAMS

    def __init__(self, server, max_tokens):
        self.processes = []
        self.ended = []  # (code, tokens) of every stream that ended
        for i in range(self.PROCESSES):
            arguments = [Setup.directory.name, server.address, self.STREAMS, max_tokens, 100 * i]
            command = [sys.executable, PROGRAM, *map(str, arguments)]
            self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def wait_until_streaming(self):
        """Until every stream has had its first message."""
        for process in self.processes:
            for line in process.stdout:
                if line.startswith("streaming"):
                    break
                self._take(line)

    def _take(self, line):
        code, tokens = line.split()
        self.ended.append((code, int(tokens)))

    def kill(self):
        """SIGKILL to all of them; how many streams they had not finished."""
        for process in self.processes:
            process.kill()
        self.wait()
        return self.TOTAL - len(self.ended)

    def wait(self):
        for process in self.processes:
            for line in process.stdout:
                self._take(line)
            process.stdout.close()
            process.wait()
