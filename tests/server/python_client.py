"""A generic gRPC client of the real server: streaming, unary, errors, health and reflection.

Usage: python_client.py SERVER_BINARY TOY_MODEL_WRITER PROTO_ROOT
Runs in an environment with tests/server/requirements.txt; compiles the protos itself.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

import grpc
import grpc_tools
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

SERVICE = "asymserve.v1.Inference"


def compile_protos(root, out):
    well_known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    files = ["asymserve/v1/inference.proto", "asymserve/v1/rpc_status.proto"]
    arguments = ["protoc", f"-I{root}", f"-I{well_known}", f"--python_out={out}"]
    if protoc.main(arguments + [f"--grpc_python_out={out}"] + files) != 0:
        raise RuntimeError("the protos do not compile")
    sys.path.insert(0, out)


class Server:
    """asymserve on a toy model, on ports that the system chose."""

    def __init__(self, binary, model, *options):
        arguments = [binary, "serve", "--model", model]
        for option in (
            "server.address=127.0.0.1:0",
            "metrics.address=127.0.0.1:0",
            "engine.threads=1",
            "engine.kv_memory_bytes=64MiB",
            # A toy model outruns a Python reader; that one is cut off is tested elsewhere.
            "server.stream_queue_messages=10000",
        ) + options:
            arguments += ["--set", option]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r" serving address=(\S+)", line)
            if found:
                self.address = found.group(1)
                return
        raise RuntimeError("the server ended before it served")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.stderr.read()
        return self.process.wait(timeout=60)


class PythonClientTest(unittest.TestCase):
    binary = writer = proto_root = None

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        compile_protos(cls.proto_root, cls.directory.name)
        model = os.path.join(cls.directory.name, "toy.gguf")
        subprocess.run([cls.writer, model], check=True)
        cls.server = Server(cls.binary, model)
        cls.channel = grpc.insecure_channel(cls.server.address)
        from asymserve.v1 import inference_pb2, inference_pb2_grpc, rpc_status_pb2

        cls.pb = inference_pb2
        cls.status_pb = rpc_status_pb2
        cls.stub = inference_pb2_grpc.InferenceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        code = cls.server.stop()
        cls.directory.cleanup()
        assert code == 0, f"the server ended with {code}"

    def request(self, max_tokens, **fields):
        return self.pb.GenerateRequest(
            prompt="hello",
            sampling=self.pb.Sampling(seed=5),
            stop=self.pb.Stop(max_tokens=max_tokens, ignore_eos=True),
            **fields,
        )

    def test_the_joined_stream_equals_the_unary_answer(self):
        request = self.request(40, return_token_ids=True)
        messages = list(self.stub.Generate(request))
        unary = self.stub.GenerateUnary(request).sequences[0]
        self.assertGreater(len(messages), 1)
        self.assertEqual("".join(message.text for message in messages), unary.text)
        self.assertEqual(
            [token.id for message in messages for token in message.tokens],
            [token.id for token in unary.tokens],
        )
        self.assertEqual([message.HasField("final") for message in messages].count(True), 1)
        self.assertEqual(messages[-1].final.reason, self.pb.FINISH_REASON_LENGTH)
        self.assertEqual(messages[-1].final.usage.generated_tokens, 40)

    def test_chat_streams(self):
        message = self.pb.ChatMessage(role="user", content="grüße")
        request = self.pb.ChatRequest(messages=[message], stop=self.pb.Stop(max_tokens=5))
        messages = list(self.stub.Chat(request))
        self.assertTrue(messages[-1].HasField("final"))

    def test_cancelling_ends_the_stream(self):
        call = self.stub.Generate(self.request(4000))
        next(call)
        call.cancel()
        with self.assertRaises(grpc.RpcError) as raised:
            list(call)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.CANCELLED)

    def test_a_deadline_ends_the_call(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.stub.GenerateUnary(self.request(4000, n=16), timeout=0.02)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_an_invalid_argument_names_the_field(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.stub.GenerateUnary(self.request(4, n=0))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertTrue(raised.exception.details().startswith("n: 0"))

    def test_tokens_come_back_as_text(self):
        text = "naïve 🌍"
        ids = self.stub.Tokenize(self.pb.TokenizeRequest(text=text)).token_ids
        answer = self.stub.Detokenize(self.pb.DetokenizeRequest(token_ids=ids))
        self.assertEqual(answer.text, text)

    def test_health_knows_the_process_and_the_service(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection_describes_the_service(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertIn(SERVICE, database.get_services())
        self.assertIn("grpc.health.v1.Health", database.get_services())
        file = database.FindFileContainingSymbol(SERVICE)
        methods = {method.name: method.server_streaming for method in file.service[0].method}
        self.assertEqual(
            methods,
            {
                "Generate": True,
                "GenerateUnary": False,
                "Chat": True,
                "Tokenize": False,
                "Detokenize": False,
                "GetModelInfo": False,
            },
        )


if __name__ == "__main__":
    PythonClientTest.binary, PythonClientTest.writer, PythonClientTest.proto_root = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1], verbosity=2)
