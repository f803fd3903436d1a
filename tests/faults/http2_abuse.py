"""What a hostile HTTP/2 client does to one connection or to many: the damage is bounded."""

import socket
import struct
import time

import http2
from harness import PATIENCE, FaultTest, Setup, eventually, generate_request
from http2 import Connection, frame

MIB = 1 << 20


class Http2AbuseTest(FaultTest):
    def expect_bounded(self, server, books, mebibytes):
        """A new client is served while the abuse stands, and the process has not grown by more."""
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        grown = server.status_bytes("VmRSS") - books.resident
        if not Setup.sanitized:
            self.assertLess(grown, mebibytes * MIB, f"grown by {grown} bytes")
        return f"{max(grown, 0) / MIB:.0f} MiB"

    def test_rapid_reset(self):
        """HTTP/2 rapid reset."""
        server, books = self.start()
        attacker, streams = Connection(server.address), 5000
        request = generate_request("reset", 3000).SerializeToString()
        for i in range(streams):
            stream = 2 * i + 1
            reset = frame(http2.RST_STREAM, stream=stream, payload=struct.pack(">I", 8))
            if not attacker.call(stream, "Generate", request) or not attacker.send(reset):
                break
        grown = self.expect_bounded(server, books, 64)
        self.record(f"{i + 1} calls reset at once on one connection", f"nothing; {grown}")
        attacker.close()
        self.expect_unharmed(server, books)

    def test_floods_that_want_answers(self):
        """SETTINGS and PING floods, answers unread."""
        server, books = self.start()
        lost = []
        floods = (("SETTINGS", http2.SETTINGS, b""), ("PING", http2.PING, b"8" * 8))
        for name, kind, payload in floods:
            attacker = Connection(server.address, receive_bytes=4096)
            attacker.socket.settimeout(5)  # the server may stop reading
            sent = 0
            while sent < 200_000 and attacker.send(frame(kind, payload=payload) * 1000):
                sent += 1000
            grown = self.expect_bounded(server, books, 64)
            if kind == http2.PING:
                self.assertTrue(
                    eventually(lambda: server.descriptors() <= books.descriptors),
                    "a flood of pings keeps its connection",
                )
            lost.append(f"{name}: {grown}" + (f", stopped at {sent:,}" if sent < 200_000 else ""))
            attacker.close()
        self.record("200,000 frames each", "nothing; " + ", ".join(lost))
        self.expect_unharmed(server, books)

    def test_headers_without_end(self):
        """Oversize headers, CONTINUATION without end."""
        server, books = self.start()
        large = http2.header(b"x-large", b"a" * 12_000)
        one = Connection(server.address)
        self.assertTrue(any(kind == http2.SETTINGS for kind, *_ in one.frames(PATIENCE)))
        one.send(frame(http2.SETTINGS, http2.ACK))  # now the limit of 8 KiB holds
        request = generate_request("oversize", 4).SerializeToString()
        one.call(1, "Generate", request, [(b"x-large", b"a" * 12_000)])
        self.assertEqual(one.answer(1, seconds=PATIENCE), b"")  # trailers only
        polite, rude = Connection(server.address), Connection(server.address)
        self.assertTrue(any(kind == http2.SETTINGS for kind, *_ in polite.frames(PATIENCE)))
        polite.send(frame(http2.SETTINGS, http2.ACK))
        sent = {}
        for endless in (polite, rude):
            sent[endless] = 0
            endless.send(frame(http2.HEADERS, 0, 1, http2.call_headers("Generate")))
            while sent[endless] < 64 * MIB and endless.send(frame(http2.CONTINUATION, 0, 1, large)):
                sent[endless] += len(large)
        self.assertTrue(polite.is_closed_within(PATIENCE))
        # Who never acknowledges the settings is not held to them: see README.md.
        grown = self.expect_bounded(server, books, 160)
        self.record(
            f"12 KB header; CONTINUATION, {sent[polite] / MIB:.0f} and {sent[rude] / MIB:.0f} MiB",
            f"that call; settings acknowledged: the connection; else {grown} while it lasts",
        )
        for connection in (one, polite, rude):
            connection.close()
        self.expect_unharmed(server, books)

    def test_half_open_connections(self):
        """Half-open connections: TCP without a preface."""
        server, books = self.start()
        connections = [Connection(server.address, preface=False) for _ in range(500)]
        grown = self.expect_bounded(server, books, 64)
        begin = time.monotonic()
        self.assertTrue(
            eventually(lambda: server.descriptors() <= books.descriptors),
            "connections that say nothing stay",
        )
        self.assertTrue(all(connection.is_closed_within(1) for connection in connections))
        seconds = time.monotonic() - begin
        self.record("500 connections", f"they, closed after {seconds:.0f} s; {grown}")
        for connection in connections:
            connection.close()
        self.expect_unharmed(server, books)

    def test_idle_connections(self):
        """Thousands of idle connections."""
        server, books = self.start()
        connections = [Connection(server.address) for _ in range(3000)]
        grown = self.expect_bounded(server, books, 256)
        self.record("3,000 connections with a preface", f"nothing; {grown}")
        for connection in connections:
            connection.close()
        self.expect_unharmed(server, books)

    def test_garbage(self):
        """Bytes that are not HTTP/2, frames that are not allowed."""
        server, books = self.start()
        frames = (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,  # a TLS hello
            http2.PREFACE + b"\xff" * 4096,
            http2.PREFACE + frame(http2.SETTINGS) + frame(http2.DATA, 0, 7, b"of no stream"),
            http2.PREFACE + frame(http2.SETTINGS) + frame(http2.HEADERS, 4, 2, b"\xff" * 64),
            http2.PREFACE + frame(http2.SETTINGS, payload=b"\0" * 5),
            http2.PREFACE + frame(http2.SETTINGS) + frame(8, 0, 0, b"\0" * 4),  # WINDOW_UPDATE of 0
        )
        for data in frames:
            connection = Connection(server.address, preface=False)
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(connection.is_closed_within(PATIENCE), data[:40])
            connection.close()
        self.record(f"{len(frames)} connections", "they")
        self.expect_unharmed(server, books)
