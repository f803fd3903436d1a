"""What `asymserve config schema` says to an editor. Usage: config_schema_test.py SERVER_BINARY

Runs in an environment with requirements.txt: kubernetes-validate brings jsonschema.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
import unittest

import yaml
from jsonschema import Draft202012Validator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVER = None


class ConfigSchemaTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        printed = subprocess.run([SERVER, "config", "schema"], check=True, capture_output=True)
        cls.schema = json.loads(printed.stdout)
        cls.validator = Draft202012Validator(cls.schema)

    def errors(self, text):
        return [error.message for error in self.validator.iter_errors(yaml.safe_load(text))]

    def test_it_is_a_schema_of_its_draft(self):
        self.assertEqual(self.schema["$schema"], Draft202012Validator.META_SCHEMA["$id"])
        Draft202012Validator.check_schema(self.schema)

    def test_every_configuration_of_the_tree_is_valid(self):
        paths = [os.path.join(ROOT, "config", name) for name in ("asymserve.yaml", "smollm2.yaml")]
        overlays = os.path.join(ROOT, "deploy", "kustomize", "overlays")
        paths += glob.glob(os.path.join(overlays, "*", "asymserve*.yaml"))
        self.assertGreater(len(paths), 2)
        for path in paths:
            with open(path, encoding="utf-8") as file:
                self.assertEqual(self.errors(file), [], path)

    def test_what_show_prints_is_valid(self):
        shown = subprocess.run(
            [SERVER, "config", "show", "--set", "log.level=off", "--set", "model.name=1e3"],
            check=True,
            capture_output=True,
        )
        self.assertEqual(self.errors(shown.stdout), [])
        self.assertEqual(yaml.safe_load(shown.stdout)["model"]["name"], "1e3")

    def test_what_the_server_takes_is_valid(self):
        for text in (
            "",
            "engine:",
            "model: {name: 7}",
            "engine: {memory_bytes: 1024, kv_memory_bytes: 2GiB}",
            "server: {address: '[::]:50051', drain_seconds: 0.5}",
            "metrics: {address: ''}",
            "scheduling: {tenants: 'gold=4,silver=2'}",
        ):
            self.assertEqual(self.errors(text), [], text)
            self.assertEqual(self.server_status(text), 0, text)

    def test_what_the_server_refuses_is_not_valid(self):
        for text in (
            "a: 1",
            "engine: {treads: 3}",
            "kv: {quality: {max_kl: 1}}",
            "engine: 3",
            "engine: {threads: '3'}",
            "engine: {threads: 1025}",
            "engine: {threads: 1.5}",
            "engine: {threads: }",
            "engine: {memory_bytes: 2GB}",
            "engine: {memory_bytes: -1}",
            "engine: {isa: sse}",
            "server: {address: localhost}",
            "server: {address: ''}",
            "server: {reflection: 1}",
            "kv: {quality: {max_mean_kl: -0.1}}",
            "scheduling: {tenants: gold}",
            "log: [text]",
            "model: {path: }",
        ):
            self.assertEqual(len(self.errors(text)), 1, text)
            self.assertEqual(self.server_status(text), 2, text)

    def server_status(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            command = [SERVER, "config", "check", "--config", file.name]
            return subprocess.run(command, check=False, capture_output=True).returncode


if __name__ == "__main__":
    SERVER = sys.argv.pop(1)
    unittest.main()
