"""The real server against deploy/: it starts on the deployed configuration, serves what the probes ask
for, exports what rules and dashboard read, and plans the memory that the manifests request.

Usage: server_test.py SERVER_BINARY CLIENT_BINARY TOY_MODEL_WRITER DEFAULT_MODEL
Without the file DEFAULT_MODEL the tests that need it are skipped.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import unittest

import manifests
import promql
from server import Server, deployed_toy_server

BINARY = CLIENT = WRITER = MODEL = None
CONFIG = os.path.join(manifests.DEPLOY, "kustomize/overlays/cpu/asymserve.yaml")
PROFILE = os.path.join(manifests.ROOT, "config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv")


def probed_services():
    deployment = manifests.load("kustomize/base/deployment.yaml")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    return {
        server[probe]["grpc"]["service"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }


def dashboard_queries():
    dashboard = manifests.load("grafana/asymserve.json")
    return [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def samples_of_credentials(directory):
    """What a server with TLS, client certificates and API keys exports besides."""
    make = os.path.join(manifests.DEPLOY, "make-certificates")
    subprocess.run([make, directory, "server", "127.0.0.1"], check=True)
    keys = os.path.join(directory, "keys.yaml")
    with open(keys, "wb") as file:
        subprocess.run([BINARY, "api-key", "x", "--days", "90"], check=True, stdout=file)
    files = (("cert_file", "server.crt"), ("key_file", "server.key"), ("client_ca_file", "ca.crt"))
    server = deployed_toy_server(
        BINARY, WRITER, CONFIG, directory,
        sets=[f"server.tls.{name}={directory}/{file}" for name, file in files]
        + [f"server.api_keys_file={keys}"],
    )
    try:
        samples = promql.parse_scrape(server.scrape())
    finally:
        server.kill()
    return [sample for sample in samples if sample[0].endswith("_not_after_seconds")]


class ToyServerTest(unittest.TestCase):
    """The deployed configuration, but for the model and the addresses."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.server = deployed_toy_server(BINARY, WRITER, CONFIG, cls.directory.name)
        cls.addClassCleanup(cls.server.kill)
        cls.server.complete(CLIENT, tokens=8)
        cls.samples = promql.parse_scrape(cls.server.scrape()) + samples_of_credentials(cls.directory.name)

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        assert status == 0, f"the server ended with {status}"

    def test_every_probed_service_is_serving(self):
        services = probed_services()
        self.assertIn("", services)
        for service in services:
            self.assertEqual(self.server.health(CLIENT, service), "SERVING")

    def test_an_unknown_service_is_not_serving(self):
        self.assertNotEqual(self.server.health(CLIENT, "asymserve.v1.Nobody"), "SERVING")

    def check_in_scrape(self, expression):
        for name, matchers in promql.selectors(expression):
            if name.startswith("asymserve:"):
                self.assertIn(name, manifests.recorded(), expression)
                continue
            found = promql.matching(self.samples, name, matchers)
            self.assertTrue(found, f"{name} {matchers} of {expression}")
            for _, labels, _ in found:
                for label, _, _ in matchers:
                    self.assertIn(label, labels)

    def test_every_series_of_a_rule_is_in_a_scrape(self):
        expressions = [rule["expr"] for rule in manifests.rules()]
        self.assertGreater(len(expressions), 20)
        for expression in expressions:
            with self.subTest(expression):
                self.assertTrue(promql.selectors(expression))
                self.check_in_scrape(expression)

    def test_every_series_of_the_dashboard_is_in_a_scrape(self):
        self.assertGreater(len(dashboard_queries()), 20)
        for expression in dashboard_queries():
            with self.subTest(expression):
                self.assertTrue(promql.selectors(expression))
                self.check_in_scrape(expression)

    def test_labels_that_queries_group_by_exist(self):
        labels = {label for _, labels, _ in self.samples for label in labels} | {"slo"}
        for expression in dashboard_queries() + [rule["expr"] for rule in manifests.rules()]:
            self.assertLessEqual(promql.labels_grouped_by(expression), labels, expression)

    def test_each_limit_of_an_objective_is_one_bound_of_its_histogram(self):
        limits = {
            (name, tuple(matchers))
            for rule in manifests.rules()
            for name, matchers in promql.selectors(rule["expr"])
            if name.endswith("_bucket")
        }
        self.assertEqual(len(limits), 2)
        for name, matchers in limits:
            self.assertEqual(len(promql.matching(self.samples, name, matchers)), 1)

    def test_the_drain_budget_is_the_deployed_one(self):
        budget = manifests.load(CONFIG)["server"]["drain_seconds"]
        self.assertIn(("asymserve_drain_budget_seconds", {}, float(budget)), self.samples)

    def test_a_misspelt_option_is_refused_by_name(self):
        with open(CONFIG, encoding="utf-8") as file:
            text = file.read().replace("drain_seconds", "drain_second")
        path = os.path.join(self.directory.name, "misspelt.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        run = subprocess.run([BINARY, "serve", "--config", path], capture_output=True, text=True)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("drain_second", run.stderr)


class DrainTest(unittest.TestCase):
    """From SIGTERM to exit, with a call that does not end by itself."""

    def test_a_drain_is_seen_from_outside_and_the_process_stays_alive(self):
        with tempfile.TemporaryDirectory() as directory:
            server = deployed_toy_server(
                BINARY, WRITER, CONFIG, directory,
                sets=("server.stream_queue_messages=100000",),  # who does not read is not cut off
            )
            self.addCleanup(server.kill)
            call = server.start_call(CLIENT, "-n", "16", "--max-tokens", "4000")
            self.addCleanup(call.kill)
            call.stdout.read(1)
            call.send_signal(signal.SIGSTOP)
            server.terminate()
            server.wait_for("asymserve_draining_seconds", lambda value: value > 0)
            samples = promql.parse_scrape(server.scrape())
            self.assertIn(("asymserve_open_calls", {}, 1.0), samples)
            self.assertEqual(server.health(CLIENT, "asymserve.v1.Inference"), "NOT_SERVING")
            self.assertEqual(server.health(CLIENT, ""), "SERVING")
            call.kill()
            call.wait()
            call.stdout.close()
            self.assertEqual(server.wait(), 0)


class DefaultModelTest(unittest.TestCase):
    """The deployed configuration as it is, but for paths and addresses."""

    def setUp(self):
        if not os.path.exists(MODEL):
            self.skipTest(f"no {MODEL}")

    def test_the_requested_memory_is_what_the_planner_asks_for(self):
        resources = manifests.load("kustomize/overlays/cpu/resources.yaml")
        (container,) = resources["spec"]["template"]["spec"]["containers"]
        config = manifests.load(CONFIG)
        run = subprocess.run(
            [
                BINARY, "plan", "--config", CONFIG, "--model", MODEL,
                "--set", f"kv.profile={PROFILE}", "--schemes", config["kv"]["scheme"],
                "--sequences", str(config["engine"]["max_running"]), "--json", "-",
            ],
            check=True, capture_output=True, text=True,
        )
        (row,) = json.loads(run.stdout)["rows"]
        planned = f"{math.ceil(row['memory_for_sequences'] / 2**20)}Mi"
        self.assertEqual(container["resources"]["requests"]["memory"], planned)
        self.assertEqual(config["engine"]["memory_bytes"], planned + "B")

    def test_the_server_holds_as_many_sequences_as_it_was_sized_for(self):
        server = Server(
            BINARY, "--config", CONFIG, "--model", MODEL, sets=(f"kv.profile={PROFILE}",)
        )
        self.addCleanup(server.kill)
        samples = promql.parse_scrape(server.scrape())
        self.assertEqual(server.stop(), 0)
        served = promql.matching(
            samples, "asymserve_kv_capacity_sequences", [("cache", "=", "served")]
        )
        ((_, labels, sequences),) = served
        self.assertEqual(labels["tokens"], "4096")
        self.assertGreaterEqual(sequences, 32)
        ((_, info, _),) = promql.matching(samples, "asymserve_kv_info", [])
        self.assertEqual(info["tier"], "balanced")


if __name__ == "__main__":
    BINARY, CLIENT, WRITER, MODEL = sys.argv[1:5]
    unittest.main(argv=sys.argv[:1], verbosity=2)
