"""Metrics scrapers that hang."""

import socket
import time

from harness import FaultTest


class ScrapersTest(FaultTest):
    def test_scrapers_that_hang(self):
        """Metrics scrapers that hang: no request, half a request, no reading."""
        server, books = self.start()
        host, port = server.metrics_address.split(":")
        connections = []
        for i in range(60):
            connection = socket.create_connection((host, int(port)))
            connections.append(connection)
            connection.sendall((b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n")[i % 3])
        begin = time.monotonic()
        self.assertGreater(len(server.metrics()), 50)
        seconds = time.monotonic() - begin
        self.assertLess(seconds, 8)  # nobody waited for one of them to time out
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        self.record("60 connections to /metrics", f"they; the next scrape took {seconds:.2f} s")
        self.expect_unharmed(server, books)  # their descriptors are back although they hold on
        for connection in connections:
            connection.close()
