"""HTTP/2 by hand (RFC 9113, HPACK RFC 7541 without tables): what no decent client would send."""

import select
import socket
import struct
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _length(value):
    """An HPACK integer with a prefix of 7 bits."""
    if value < 127:
        return bytes([value])
    out, value = bytearray([127]), value - 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + bytes([value]))


def header(name, value):
    """A literal field that is not indexed."""
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def call_headers(method, extra=()):
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/asymserve.v1.Inference/" + method.encode()),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return b"".join(header(*field) for field in fields + list(extra))


class Connection:
    """A socket to `address`. Errors of a connection that the server has closed are its end."""

    def __init__(self, address, preface=True, receive_bytes=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60)
        self.socket.connect((host, int(port)))
        self.closed = False
        self.buffer = b""
        if preface:
            self.send(PREFACE + frame(SETTINGS))

    def close(self):
        self.socket.close()

    def send(self, data):
        """False once the server has closed the connection, or does not read for a minute."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True
        return not self.closed

    def call(self, stream, method, message, extra=()):
        """One unary request or the request of a stream, in one write."""
        body = struct.pack(">BI", 0, len(message)) + message
        return self.send(
            frame(HEADERS, END_HEADERS, stream, call_headers(method, extra))
            + frame(DATA, END_STREAM, stream, body)
        )

    def frames(self, seconds):
        """What arrives within `seconds`, as (kind, flags, stream, payload)."""
        deadline = time.monotonic() + seconds
        while True:
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                yield kind, flags, stream, payload
            left = deadline - time.monotonic()
            if self.closed or left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            self.closed = not data
            self.buffer += data

    def answer(self, stream, seconds):
        """The bytes of the messages of `stream`, with their prefixes; None if it does not end."""
        body = b""
        for kind, flags, at, payload in self.frames(seconds):
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK))
            if at != stream:
                continue
            if kind == DATA:
                body += payload
            if kind == RST_STREAM or flags & END_STREAM and kind in (DATA, HEADERS):
                return body
        return None

    def is_closed_within(self, seconds):
        for _ in self.frames(seconds):
            pass
        return self.closed
