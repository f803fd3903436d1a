"""The end of a server, wanted or not, and the next start."""

import signal
import subprocess
import tempfile
import time

from client_processes import ClientProcesses
from harness import Books, FaultTest, Setup, free_port


class RestartsTest(FaultTest):
    def test_a_killed_server(self):
        """kill -9 of the server under 64 streams, and restart."""
        address = f"127.0.0.1:{free_port()}"
        server, books = self.start(address=address)
        clients = ClientProcesses(server, max_tokens=3900)
        clients.wait_until_streaming()
        server.kill()
        self.assertEqual(server.wait(), -signal.SIGKILL)
        clients.wait()
        self.assertEqual({code for code, _ in clients.ended}, {"UNAVAILABLE"})
        again = self.launch(address=address)
        seconds = again.wait_until_serving()
        self.record("64 streams", f"all streams, UNAVAILABLE; ready again after {seconds:.1f} s")
        self.assertLess(seconds, 30)
        self.assertEqual(again.unary(books.PROMPT, books.TOKENS), books.text)
        self.expect_unharmed(again, Books(again))

    def test_sigterm_under_load(self):
        """SIGTERM under 64 streams."""
        server, _ = self.start("server.drain_seconds=100", "server.stream_queue_messages=4000")
        clients = ClientProcesses(server, max_tokens=300)
        clients.wait_until_streaming()
        begin = time.monotonic()
        server.kill(signal.SIGTERM)
        clients.wait()
        self.assertEqual(server.wait(), 0)
        seconds = time.monotonic() - begin
        self.record("64 streams", f"nothing: all ended, then exit 0 after {seconds:.1f} s")
        self.assertEqual(clients.ended, [("OK", 300)] * clients.TOTAL)
        self.assertIn("finished_all=true", server.log())

    def test_sigterm_with_too_little_time(self):
        """SIGTERM under 64 streams that outlast the drain budget."""
        server, _ = self.start("server.drain_seconds=0.2")
        clients = ClientProcesses(server, max_tokens=3900)
        clients.wait_until_streaming()
        server.kill(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
        clients.wait()
        cut = sum(code != "OK" for code, _ in clients.ended)
        self.record("64 streams, drain_seconds 0.2", f"{cut} streams, told so")
        self.assertEqual(len(clients.ended), clients.TOTAL)
        self.assertGreater(cut, 0)

    def test_a_start_that_fails_ends_at_once(self):
        """A start that fails."""
        with tempfile.NamedTemporaryFile() as model:
            model.write(b"GGUF but not really")
            model.flush()
            begin = time.monotonic()
            server = self.launch(model=model.name)
            self.assertEqual(server.wait(), 1)
            failed = time.monotonic() - begin
        begin = time.monotonic()
        subprocess.run([Setup.binary, "version"], check=True, stdout=subprocess.DEVNULL)
        process = time.monotonic() - begin  # what starting any process takes here
        self.record("model file is no model", f"the start; exit 1 after {failed:.2f} s")
        self.assertLess(failed, 10 + 10 * process)
        self.assertIn(model.name, server.log())
