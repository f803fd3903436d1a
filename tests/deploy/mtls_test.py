"""The real server as the components mtls and api-keys start it, on certificates of make-certificates.

Usage: mtls_test.py SERVER_BINARY CLIENT_BINARY TOY_MODEL_WRITER
"""

import os
import subprocess
import sys
import tempfile
import time
import unittest

import manifests
import promql
from server import deployed_toy_server

BINARY = CLIENT = WRITER = None
CONFIG = os.path.join(manifests.DEPLOY, "kustomize/overlays/cpu/asymserve.yaml")
NOT_AFTER = "asymserve_tls_certificate_not_after_seconds"
FOLDERS = {"/etc/asymserve-tls": "tls", "/etc/asymserve-keys": "keys"}  # mounted -> of the test


class MutualTlsTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        for name in FOLDERS.values():
            os.mkdir(self.path(name))

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def local(self, text):
        """With the folders of the test for those of the container."""
        for mounted, folder in FOLDERS.items():
            text = text.replace(mounted + "/", self.path(folder) + "/")
        return text

    def make(self, name, *dns_names):
        subprocess.run(
            [os.path.join(manifests.DEPLOY, "make-certificates"), self.path("made"), name, *dns_names],
            check=True,
        )

    def put(self, made, name):
        """As the Secret's volume does: a complete file takes the place of the old one."""
        with open(self.path("made", made), encoding="utf-8") as file:
            text = file.read()
        with open(self.path("new"), "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.path("new"), self.path("tls", name))

    def put_all(self, authority="ca.crt"):
        self.put(authority, "ca.crt")
        self.put("server.crt", "tls.crt")
        self.put("server.key", "tls.key")

    def start(self, *components):
        sets = []
        for component in components:
            options = manifests.arguments_set(manifests.component_arguments(component))
            sets += [self.local(f"{name}={value}") for name, value in options.items()]
        server = deployed_toy_server(BINARY, WRITER, CONFIG, self.directory, sets=sets)
        self.addCleanup(server.kill)
        return server

    def probe(self, server, name):
        """The exit status and output of a probe's command."""
        probe = manifests.component_container("mtls")[name]
        command = [self.local(item) for item in probe["exec"]["command"]]
        self.assertEqual(command[0], "asymserve-client")
        port = server.address.rpartition(":")[2]
        command = [CLIENT] + [item.replace("127.0.0.1:50051", f"127.0.0.1:{port}") for item in command[1:]]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return run.returncode, run.stdout.strip()

    def call(self, server, name, **environment):
        """What `asymserve-client info` with the certificate `name` of make-certificates says."""
        command = [CLIENT, "info", "--address", server.address]
        command += ["--tls-ca", self.path("made/ca.crt"), "--tls-cert", self.path(f"made/{name}.crt")]
        command += ["--tls-key", self.path(f"made/{name}.key")]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
        )
        return "OK" if run.returncode == 0 else run.stderr.partition(":")[0]

    def not_after(self, server):
        ((_, _, value),) = promql.matching(promql.parse_scrape(server.scrape()), NOT_AFTER, [])
        return value

    def test_the_probes_find_the_server_serving_and_holders_of_a_certificate_may_call(self):
        self.make("server", "127.0.0.1", "asymserve.asymserve.svc")
        self.make("my-app")
        self.put_all()
        server = self.start("mtls")
        for name in ("startupProbe", "readinessProbe"):
            self.assertEqual(self.probe(server, name), (0, "SERVING"))
        self.assertEqual(self.call(server, "my-app"), "OK")
        self.assertNotEqual(server.health(CLIENT, ""), "SERVING")  # in plaintext
        days = (self.not_after(server) - time.time()) / 86400
        self.assertTrue(89 < days < 91, days)
        self.assertEqual(server.stop(), 0)

    def test_a_certificate_made_again_is_taken_up_and_the_probe_goes_on(self):
        self.make("server", "127.0.0.1")
        self.put_all()
        server = self.start("mtls")
        before = self.not_after(server)
        time.sleep(1.1)  # dates of certificates are in seconds
        self.make("server", "127.0.0.1")
        self.put_all()
        deadline = time.monotonic() + 30
        while self.not_after(server) == before and time.monotonic() < deadline:
            self.assertEqual(self.probe(server, "readinessProbe"), (0, "SERVING"))
        self.assertGreater(self.not_after(server), before)
        self.assertEqual(self.probe(server, "readinessProbe"), (0, "SERVING"))

    def test_an_expired_certificate_takes_the_pod_out_of_balancing_and_restarts_nothing(self):
        self.make("server", "127.0.0.1")
        # The same key, with a day that is over.
        run = subprocess.run(
            ["openssl", "x509", "-x509toreq", "-copy_extensions", "copy", "-in", "server.crt",
             "-signkey", "server.key"],
            check=True, capture_output=True, cwd=self.path("made"),
        )
        subprocess.run(
            ["openssl", "x509", "-req", "-days", "-1", "-CA", "ca.crt", "-CAkey", "ca.key",
             "-copy_extensions", "copy", "-out", "server.crt"],
            check=True, capture_output=True, cwd=self.path("made"), input=run.stdout,
        )
        self.put_all()
        server = self.start("mtls")
        self.assertLess(self.not_after(server), time.time())
        status, _ = self.probe(server, "readinessProbe")
        self.assertNotEqual(status, 0)
        liveness = manifests.component_container("mtls")["livenessProbe"]["httpGet"]
        self.assertEqual(liveness, {"path": "/metrics", "port": "metrics"})
        self.assertIn("asymserve_build_info", server.scrape())

    def test_with_the_component_api_keys_a_certificate_alone_is_not_enough(self):
        self.make("server", "127.0.0.1")
        self.make("my-app")
        self.put_all()
        run = subprocess.run(
            [BINARY, "api-key", "my-app"], check=True, capture_output=True, text=True
        )
        with open(self.path("keys/keys.yaml"), "w", encoding="utf-8") as file:
            file.write(run.stdout)
        (key,) = [word for word in run.stderr.split() if word.startswith("ask_")]
        server = self.start("mtls", "api-keys")
        self.assertEqual(self.probe(server, "readinessProbe"), (0, "SERVING"))
        self.assertEqual(self.call(server, "my-app"), "UNAUTHENTICATED")
        self.assertEqual(self.call(server, "my-app", ASYMSERVE_API_KEY=key), "OK")


if __name__ == "__main__":
    BINARY, CLIENT, WRITER = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1], verbosity=2)
