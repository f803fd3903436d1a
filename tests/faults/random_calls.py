"""Calls made by chance: the methods, messages of any content, and what was expected of them."""

import math
import random

import grpc
from google.protobuf.descriptor import FieldDescriptor as Field

from harness import Setup

NUMBERS = [0, 1, -1, 2, 3, 7, 16, 17, 20, 21, 63, 100, 101, 4095, 4096, 86400000, 2**31 - 1, -(2**31)]
FLOATS = [0.0, 1.0, 0.5, -0.0, -1.0, 2.0, 1e-30, 1e30, math.nan, math.inf, -math.inf, 0.95, 1.1]
WORDS = ["once", "upon", "a", "time", "\n", "{{", "<|im_end|>", "\0", "é", "日本", "\u202e", "🙂", "\ufeff"]
PACKAGE = "/asymserve.v1.Inference/"


class Chance(random.Random):
    """The same choices for the same seed. Calm ones avoid what is sure to be refused."""

    def __init__(self, seed):
        super().__init__(seed)
        self.calm = self.random() < 0.6


def text(rng):
    kind = rng.uniform(0.2, 1) if rng.calm else rng.random()
    if kind < 0.1:
        return ""
    if kind < 0.2:
        return rng.choice(WORDS) * rng.choice([1, 100, 3000])
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 12 if rng.calm else 60)))


def number(rng):
    if rng.calm:
        return rng.randrange(1, 5)
    return rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randrange(0, 64)


def value(field, rng):
    kind = field.type
    if kind == Field.TYPE_STRING:
        return text(rng)
    if kind == Field.TYPE_BYTES:
        return rng.randbytes(rng.randrange(40))
    if kind == Field.TYPE_ENUM and rng.random() < 0.9:
        return rng.choice(list(field.enum_type.values_by_number))
    if kind == Field.TYPE_BOOL:
        return rng.random() < 0.5
    if kind in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        if rng.calm:
            return rng.uniform(0.1, 1)
        return rng.choice(FLOATS) if rng.random() < 0.5 else rng.uniform(-2, 2)
    if kind == Field.TYPE_UINT64:
        return rng.choice([0, 1, 2**64 - 1, rng.randrange(2**32)])
    return number(rng)


def fill(message, rng, density):
    """Sets each field with that probability, the fields of its messages, too."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > density:
            continue
        entry = field.message_type if field.type == Field.TYPE_MESSAGE else None
        if entry is not None and entry.GetOptions().map_entry:
            target = getattr(message, field.name)
            for _ in range(rng.choice([1, 3, 200])):
                key = value(entry.fields_by_name["key"], rng)
                target[key] = value(entry.fields_by_name["value"], rng)
        elif field.label == Field.LABEL_REPEATED:
            target = getattr(message, field.name)
            for _ in range(rng.choice([1, 2, 5] if rng.calm else [1, 2, 5, 100])):
                if entry is not None:
                    fill(target.add(), rng, density)
                else:
                    target.append(value(field, rng))
        elif entry is not None:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), rng, density)
        else:
            setattr(message, field.name, value(field, rng))


def mutate(data, rng):
    """Some bytes changed, left out, doubled or cut off: rarely a protobuf."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.randrange(8))
        elif kind == 2:
            del data[at : at + rng.randrange(8)]
        else:
            data = data[:at]
    return bytes(data)


class RandomCall:
    """One call, the same for the same numbers."""

    def __init__(self, rng):
        pb = Setup.pb
        requests = {
            "Generate": pb.GenerateRequest,
            "GenerateUnary": pb.GenerateRequest,
            "Chat": pb.ChatRequest,
            "Tokenize": pb.TokenizeRequest,
            "Detokenize": pb.DetokenizeRequest,
            "GetModelInfo": pb.GetModelInfoRequest,
        }
        self.method = rng.choice(list(requests))
        message = requests[self.method]()
        fill(message, rng, rng.choice([0.1, 0.3, 0.8]))
        if hasattr(message, "prompt") and (rng.calm or not message.WhichOneof("input")):
            message.prompt = text(rng)
        if self.method == "Chat" and not message.messages:
            message.messages.add(role="user", content=text(rng))
        if hasattr(message, "stop") and rng.random() < 0.9:
            message.stop.max_tokens = rng.randrange(5, 50)  # so that it ends
        self.whole = rng.random() < 0.9
        data = message.SerializeToString()
        self.data = data if self.whole else mutate(data, rng)
        self.metadata = []
        if rng.random() < 0.3:
            tenant = rng.choice(["a", "b", "x" * 65, "with space", "a,b", "=", "default"])
            self.metadata.append(("x-tenant-id", tenant))
        if rng.random() < 0.2:
            self.metadata.append(("traceparent", rng.choice(["00-", "zz", f"00-{'a' * 32}-{'b' * 16}-01"])))
        self.timeout = rng.choice([0.001, 0.05, 1, 60, 60, 60, 60])
        self.cancel_after = rng.randrange(4) if rng.random() < 0.15 else None

    def __str__(self):
        return f"{self.method} {self.data.hex()} {self.metadata} timeout {self.timeout}"

    def run(self, channel):
        """Its code and message."""
        call = channel.unary_stream(PACKAGE + self.method)(
            self.data, timeout=self.timeout, metadata=self.metadata
        )
        try:
            for count, _ in enumerate(call):
                if count == self.cancel_after:
                    call.cancel()
        except grpc.RpcError:
            pass
        return call.code(), call.details() or ""

    def surprise(self, code, details):
        """What is wrong with that answer; empty: it is one of those that the protocol allows."""
        allowed = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        if self.cancel_after is not None:
            allowed.add("CANCELLED")
        if self.method == "Chat":
            allowed.add("FAILED_PRECONDITION")
        if code.name not in allowed:
            return f"code {code.name}"
        if code is grpc.StatusCode.INVALID_ARGUMENT and ":" not in details:
            return "the message names no field"
        return ""
