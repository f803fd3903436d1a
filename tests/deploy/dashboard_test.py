"""Every query of the dashboard, the autoscalers and the rules, run by a real Prometheus that scrapes the
real server under a little load.

Usage: dashboard_test.py SERVER_BINARY CLIENT_BINARY TOY_MODEL_WRITER
Runs in an environment with requirements.txt; needs Debian's prometheus.
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import manifests
from server import deployed_toy_server

BINARY = CLIENT = WRITER = None
CONFIG = os.path.join(manifests.DEPLOY, "kustomize/overlays/cpu/asymserve.yaml")
JOB = "asymserve/asymserve"
TARGET = {"namespace": "asymserve", "pod": "asymserve-0"}  # as a PodMonitor labels it
LOAD_SECONDS = 12


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Scrapes `target` and evaluates the rules every second."""

    def __init__(self, directory, target):
        rules = os.path.join(directory, "rules.yaml")
        with open(os.path.join(manifests.DEPLOY, "prometheus/rules.yaml"), encoding="utf-8") as file:
            text = file.read().replace("interval: 15s", "interval: 1s")
        with open(rules, "w", encoding="utf-8") as file:
            file.write(text)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [
                {"job_name": JOB, "static_configs": [{"targets": [target], "labels": TARGET}]}
            ],
        }
        path = os.path.join(directory, "prometheus.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}/api/v1/"
        self.log = open(os.path.join(directory, "prometheus.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={path}", f"--web.listen-address={address}",
                f"--storage.tsdb.path={directory}/data",
            ],
            stderr=self.log, stdout=self.log,
        )

    def get(self, path, **parameters):
        url = self.url + path + "?" + urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """[(labels, value)]; a query that does not parse raises."""
        try:
            result = self.get("query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return [(item["metric"], float(item["value"][1])) for item in result]

    def wait_for(self, expression, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if self.query(expression):
                    return
            except OSError:  # not up yet
                if self.process.poll() is not None:
                    break
            time.sleep(0.2)
        self.log.seek(0)
        raise RuntimeError(f"nothing for {expression}:\n{self.log.read()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


def run_load(server):
    """Calls of several kinds for LOAD_SECONDS: long and short ones, cancelled and refused ones."""
    end = time.monotonic() + LOAD_SECONDS

    def repeat(*arguments):
        while time.monotonic() < end:
            server.start_call(CLIENT, *arguments).communicate()

    def cancel():
        while time.monotonic() < end:
            call = server.start_call(CLIENT, "-n", "16", "--max-tokens", "4000")
            call.stdout.read(1)
            call.kill()
            call.communicate()
            time.sleep(0.2)

    workers = [threading.Thread(target=cancel)]
    for arguments in (
        ("--max-tokens", "400"),
        ("--max-tokens", "20", "--tenant", "somebody"),
        ("--max-tokens", "1000000"),  # more than the context
    ):
        workers.append(threading.Thread(target=repeat, args=arguments))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


class DashboardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.server = deployed_toy_server(BINARY, WRITER, CONFIG, cls.directory.name)
        cls.addClassCleanup(cls.server.kill)
        cls.prometheus = Prometheus(cls.directory.name, cls.server.metrics)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.prometheus.wait_for("asymserve_build_info")
        run_load(cls.server)
        cls.prometheus.wait_for("asymserve:slo_bad:ratio3d")

    def check(self, expression):
        """The query answers with numbers."""
        answer = self.prometheus.query(expression)
        self.assertTrue(answer, expression)
        for labels, value in answer:
            self.assertTrue(math.isfinite(value), f"{expression}: {labels} {value}")

    def test_every_query_of_the_dashboard_has_data(self):
        dashboard = manifests.load("grafana/asymserve.json")
        queries = [
            target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
        ]
        self.assertGreater(len(queries), 20)
        for query in queries:
            for variable, value in (
                ("$namespace", TARGET["namespace"]), ("$job", JOB), ("$__rate_interval", "20s"),
            ):
                query = query.replace(variable, value)
            self.assertNotIn("$", query)
            with self.subTest(query):
                self.check(query)

    def test_every_variable_of_the_dashboard_has_values(self):
        for name in ("namespace", "job"):
            values = self.prometheus.get(f"label/{name}/values", **{"match[]": "asymserve_build_info"})
            self.assertEqual(values, [JOB if name == "job" else TARGET[name]])

    def test_promtool_finds_fault_with_no_name_but_the_aliases(self):
        run = subprocess.run(
            ["promtool", "check", "metrics"], input=self.server.scrape(), capture_output=True, text=True
        )
        complaints = (run.stdout + run.stderr).splitlines()
        self.assertTrue(complaints)
        for complaint in complaints:
            self.assertRegex(complaint, r"^vllm:\w+ metric names should not contain ':'$")

    def test_what_keda_asks_for_has_data(self):
        triggers = manifests.load("kustomize/overlays/autoscale-keda/scaled-object.yaml")
        for trigger in triggers["spec"]["triggers"]:
            with self.subTest(trigger["name"]):
                self.check(trigger["metadata"]["query"])

    def test_what_the_adapter_asks_for_has_data_of_each_pod(self):
        for rule in manifests.load("prometheus/adapter-rules.yaml")["rules"]:
            with self.subTest(rule["name"]["as"]):
                self.check(rule["seriesQuery"])
                query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
                query = query.replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
                query = query.replace(
                    "<<.LabelMatchers>>", f'namespace="{TARGET["namespace"]}",pod="{TARGET["pod"]}"'
                )
                self.check(query)
                ((labels, _),) = self.prometheus.query(query)
                self.assertEqual(labels, {"pod": TARGET["pod"]})

    def test_every_rule_evaluates_and_a_healthy_server_raises_no_alert(self):
        groups = self.prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual(len(rules), len(manifests.rules()))
        for rule in rules:
            self.assertEqual((rule["health"], rule.get("lastError")), ("ok", None), rule["name"])
        for record in manifests.recorded():
            self.check(record)
        self.assertEqual(self.prometheus.get("alerts")["alerts"], [])


if __name__ == "__main__":
    BINARY, CLIENT, WRITER = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1], verbosity=2)
