"""What the rendered manifests of deploy/kustomize promise. Usage: manifests_test.py SERVER_BINARY

Runs in an environment with requirements.txt.
"""

import re
import subprocess
import sys
import textwrap
import unittest

import kubernetes_validate
from kubernetes_validate import SchemaNotFoundError

import manifests
from manifests import (
    COMPOSED,
    OVERLAYS,
    PROBES,
    config,
    container,
    deployment,
    of_kind,
    overlay,
    pod_template,
    the,
)

VERSION = None
SERVERS = tuple(f"overlays/{name}" for name in OVERLAYS) + (COMPOSED,)
ENCRYPTED = ("overlays/mtls", COMPOSED)
GPU = "nvidia.com/gpu"
# How long a client may not know a new replica: gRPC asks a name server again after 30 s at the
# earliest, and the answer may be as old as its TTL, 30 s of kubeadm's CoreDNS (by itself it has 5 s).
RESOLUTION_SECONDS = 30
DNS_TTL_SECONDS = 30
ON_CPU = tuple(folder for folder in SERVERS if folder != "overlays/gpu")
FOLDERS = ("model-volume",) + SERVERS
CUSTOM_KINDS = {"PodMonitor", "PrometheusRule", "ScaledObject"}
CLUSTER_KINDS = {"Namespace"}
PORTS = {"grpc": "server.address", "metrics": "metrics.address"}


def pods(documents):
    """(labels, spec) of every pod that the documents make."""
    found = [(pod["metadata"]["labels"], pod["spec"]) for pod in of_kind(documents, "Pod")]
    for workload in of_kind(documents, "Deployment"):
        template = workload["spec"]["template"]
        found.append((template["metadata"]["labels"], template["spec"]))
    return found


def mounted_file(documents, path):
    """(volume, name in it) of a file in the server's container."""
    mounts = [
        mount
        for mount in container(documents)["volumeMounts"]
        if path.startswith(mount["mountPath"] + "/")
    ]
    if len(mounts) != 1:
        raise AssertionError(f"{path}: {len(mounts)} mounts")
    (volume,) = [
        volume
        for volume in pod_template(documents)["spec"]["volumes"]
        if volume["name"] == mounts[0]["name"]
    ]
    return volume, path[len(mounts[0]["mountPath"]) + 1 :]


def is_encrypted(documents):
    return "tls" in config(documents)["server"]


def read(path):
    with open(f"{manifests.ROOT}/{path}", encoding="utf-8") as file:
        return file.read()


def selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def of_each(*folders):
    """Runs a test with the rendered documents of every folder."""

    def decorate(test):
        def run(self):
            for folder in folders:
                with self.subTest(folder):
                    test(self, manifests.render(folder))

        return run

    return decorate


of_each_overlay = of_each(*SERVERS)


class ManifestsTest(unittest.TestCase):
    @of_each(*FOLDERS)
    def test_every_document_is_valid_for_the_newest_schema(self, documents):
        version = kubernetes_validate.latest_version()
        for document in documents:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except SchemaNotFoundError:
                self.assertIn(document["kind"], CUSTOM_KINDS)

    def test_the_schemas_refuse_an_unknown_field(self):
        broken = dict(the(overlay("cpu"), "Service", "asymserve"), sepc={})
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)

    @of_each(*FOLDERS)
    def test_all_is_in_the_namespace_that_enforces_restricted_pods(self, documents):
        namespace = the(documents, "Namespace")
        labels = namespace["metadata"]["labels"]
        self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "restricted")
        for document in documents:
            if document["kind"] not in CLUSTER_KINDS:
                self.assertEqual(
                    document["metadata"].get("namespace"), namespace["metadata"]["name"]
                )

    @of_each(*FOLDERS)
    def test_every_pod_is_restricted(self, documents):
        self.assertTrue(pods(documents))
        for _, pod in pods(documents):
            for forbidden in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
                self.assertNotIn(forbidden, pod)
            self.assertIs(pod["automountServiceAccountToken"], False)
            security = pod["securityContext"]
            self.assertIs(security["runAsNonRoot"], True)
            self.assertEqual(security["runAsUser"], 10001)  # the image's
            self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
            for item in pod["containers"]:
                security = item["securityContext"]
                self.assertIs(security["allowPrivilegeEscalation"], False)
                self.assertIs(security["readOnlyRootFilesystem"], True)
                self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                self.assertNotIn("hostPort", str(item.get("ports")))
            for volume in pod["volumes"]:
                self.assertIn(
                    (set(volume) - {"name"}).pop(), {"configMap", "persistentVolumeClaim", "secret"}
                )

    @of_each(*FOLDERS)
    def test_images_have_the_servers_version_as_tag(self, documents):
        for _, pod in pods(documents):
            for item in pod["containers"]:
                _, _, tag = item["image"].rpartition(":")
                self.assertEqual(tag, VERSION)

    @of_each_overlay
    def test_the_server_mounts_the_claim_of_the_model_volume_read_only(self, documents):
        claim = the(manifests.render("model-volume"), "PersistentVolumeClaim")["metadata"]["name"]
        volumes = {
            volume["name"]: volume["persistentVolumeClaim"]
            for volume in pod_template(documents)["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        self.assertEqual(list(volumes.values()), [{"claimName": claim, "readOnly": True}])
        mounts = {mount["name"]: mount for mount in container(documents)["volumeMounts"]}
        self.assertTrue(all(mount["readOnly"] for mount in mounts.values()))
        folder = mounts[list(volumes)[0]]["mountPath"]
        self.assertTrue(config(documents)["model"]["path"].startswith(folder + "/"))
        self.assertTrue(config(documents)["kv"]["profile"].startswith(folder + "/"))

    @of_each_overlay
    def test_selectors_match_the_servers_pods_and_no_others(self, documents):
        loader = pods(manifests.render("model-volume"))[0][0]
        labels = pod_template(documents)["metadata"]["labels"]
        selectors = [
            deployment(documents)["spec"]["selector"]["matchLabels"],
            the(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            the(documents, "PodMonitor")["spec"]["selector"]["matchLabels"],
        ]
        selectors += [item["spec"]["selector"] for item in of_kind(documents, "Service")]
        selectors += [
            policy["spec"]["podSelector"]["matchLabels"]
            for policy in of_kind(documents, "NetworkPolicy")
            if policy["metadata"]["name"] != "default-deny"
        ]
        spread = pod_template(documents)["spec"]["topologySpreadConstraints"]
        selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
        self.assertEqual(len(selectors), 9)
        for selector in selectors:
            self.assertTrue(selects(selector, labels), selector)
            self.assertFalse(selects(selector, loader), selector)

    @of_each_overlay
    def test_ports_are_those_the_server_listens_on(self, documents):
        ports = {port["name"]: port["containerPort"] for port in container(documents)["ports"]}
        self.assertEqual(set(ports), set(PORTS))
        for name, option in PORTS.items():
            section, key = option.split(".")
            self.assertEqual(config(documents)[section][key], f"0.0.0.0:{ports[name]}")
        for service in of_kind(documents, "Service"):
            (port,) = service["spec"]["ports"]
            self.assertEqual(port["targetPort"], "grpc")
            self.assertEqual(
                port["appProtocol"], "https" if is_encrypted(documents) else "kubernetes.io/h2c"
            )
        probes = [container(documents)[probe] for probe in PROBES]
        for probe in probes:
            if "grpc" in probe:
                self.assertEqual(probe["grpc"]["port"], ports["grpc"])
            elif "exec" in probe:
                self.assertIn(f"--address=127.0.0.1:{ports['grpc']}", probe["exec"]["command"])
            else:
                self.assertEqual(probe["httpGet"]["port"], "metrics")
        (scraped,) = the(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
        self.assertEqual(scraped["port"], "metrics")

    @of_each_overlay
    def test_a_headless_service_is_there_for_clients_that_balance(self, documents):
        services = {
            service["metadata"]["name"]: service["spec"].get("clusterIP")
            for service in of_kind(documents, "Service")
        }
        self.assertEqual(services, {"asymserve": None, "asymserve-headless": "None"})

    @of_each_overlay
    def test_the_grace_period_holds_pre_stop_and_drain(self, documents):
        grace = pod_template(documents)["spec"]["terminationGracePeriodSeconds"]
        pre_stop = container(documents)["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = config(documents)["server"]["drain_seconds"]
        self.assertGreaterEqual(grace, pre_stop + drain + 5)
        # Readiness alone takes the pod out of balancing before the drain begins, too.
        readiness = container(documents)["readinessProbe"]
        self.assertGreaterEqual(
            pre_stop, readiness["periodSeconds"] * readiness["failureThreshold"]
        )

    @of_each_overlay
    def test_two_scrapes_see_a_drain_that_will_overrun(self, documents):
        (scraped,) = the(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
        self.assertIn("0.8 * asymserve_drain_budget_seconds", str(manifests.rules()))
        window = 0.2 * config(documents)["server"]["drain_seconds"]
        self.assertGreater(window, manifests.seconds(scraped["interval"]))

    @of_each_overlay
    def test_liveness_asks_for_the_process_and_readiness_for_the_service(self, documents):
        server = container(documents)
        if is_encrypted(documents):  # Kubernetes's gRPC probes speak no TLS
            self.assertEqual(server["livenessProbe"]["httpGet"]["path"], "/metrics")
            asked = {server[probe]["exec"]["command"][-1] for probe in PROBES[:2]}
        else:
            self.assertEqual(server["livenessProbe"]["grpc"]["service"], "")
            asked = {server[probe]["grpc"]["service"] for probe in PROBES[:2]}
        self.assertEqual(asked, {"asymserve.v1.Inference"})

    @of_each(*ENCRYPTED)
    def test_tls_asks_for_client_certificates_from_files_of_the_secret(self, documents):
        options = config(documents)["server"]
        self.assertIs(options["insecure"], False)
        self.assertEqual(sorted(options["tls"]), ["cert_file", "client_ca_file", "key_file"])
        for option, name in (
            ("cert_file", "tls.crt"), ("key_file", "tls.key"), ("client_ca_file", "ca.crt"),
        ):
            volume, file = mounted_file(documents, options["tls"][option])
            self.assertEqual(volume["secret"]["secretName"], "asymserve-tls")
            self.assertNotIn("optional", volume["secret"])
            self.assertEqual(file, name)

    @of_each(*ENCRYPTED)
    def test_probes_show_the_servers_certificate_and_give_up_in_their_time(self, documents):
        tls = config(documents)["server"]["tls"]
        for name in PROBES[:2]:
            probe = container(documents)[name]
            command = probe["exec"]["command"]
            self.assertEqual(command[:2], ["asymserve-client", "health"])  # as in the image
            self.assertIn(f"--tls-ca={tls['client_ca_file']}", command)
            self.assertIn(f"--tls-cert={tls['cert_file']}", command)
            self.assertIn(f"--tls-key={tls['key_file']}", command)
            (timeout,) = [item for item in command if item.startswith("--timeout=")]
            self.assertLess(float(timeout.partition("=")[2]), probe["timeoutSeconds"])

    @of_each(*ENCRYPTED)
    def test_no_certificate_decides_over_restarts(self, documents):
        self.assertNotIn("exec", container(documents)["livenessProbe"])

    def test_without_the_component_the_server_is_told_that_it_is_insecure(self):
        for folder in set(SERVERS) - set(ENCRYPTED):
            documents = manifests.render(folder)
            self.assertIs(config(documents)["server"]["insecure"], True)
            self.assertFalse(is_encrypted(documents))

    def test_keys_are_asked_for_with_the_component_only(self):
        for folder in SERVERS:
            path = config(manifests.render(folder))["server"].get("api_keys_file")
            self.assertEqual(path is not None, folder == COMPOSED, folder)
        volume, file = mounted_file(manifests.render(COMPOSED), path)
        self.assertEqual((volume["secret"]["secretName"], file), ("asymserve-api-keys", "keys.yaml"))

    def test_what_a_probe_runs_is_in_the_image(self):
        text = read("Dockerfile")
        self.assertIn("build/release/bin/asymserve-client\n", text.replace(" \\\n", "\n"))
        self.assertIn("COPY --from=build /image/usr/local /usr/local\n", text)

    @of_each(*FOLDERS)
    def test_every_namespace_denies_by_default(self, documents):
        deny = the(documents, "NetworkPolicy", "default-deny")["spec"]
        self.assertEqual(deny, {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})

    @of_each_overlay
    def test_nothing_enters_or_leaves_but_calls_and_scrapes(self, documents):
        allowed = set()
        for policy in of_kind(documents, "NetworkPolicy"):
            self.assertNotIn("egress", policy["spec"])
            for rule in policy["spec"].get("ingress", []):
                self.assertTrue(rule["from"])
                for peer in rule["from"]:
                    self.assertTrue(peer["namespaceSelector"]["matchLabels"])
                allowed |= {port["port"] for port in rule["ports"]}
        ports = {port["containerPort"] for port in container(documents)["ports"]}
        self.assertEqual(allowed, ports)

    @of_each_overlay
    def test_a_rollout_and_a_drained_node_take_one_replica_at_a_time(self, documents):
        strategy = deployment(documents)["spec"]["strategy"]
        self.assertEqual(strategy["type"], "RollingUpdate")
        spare = 0 if GPU in container(documents)["resources"]["limits"] else 1
        self.assertEqual(
            strategy["rollingUpdate"], {"maxUnavailable": 1 - spare, "maxSurge": spare}
        )
        budget = the(documents, "PodDisruptionBudget")["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        spread = pod_template(documents)["spec"]["topologySpreadConstraints"]
        self.assertEqual(
            [constraint["topologyKey"] for constraint in spread],
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"],
        )

    @of_each_overlay
    def test_clients_learn_a_new_replicas_address_before_an_old_one_goes(self, documents):
        ready = deployment(documents)["spec"]["minReadySeconds"]
        self.assertGreaterEqual(ready, RESOLUTION_SECONDS + DNS_TTL_SECONDS)

    @of_each_overlay
    def test_a_slow_replica_is_no_rollout_that_stands_still(self, documents):
        spec = deployment(documents)["spec"]
        startup = container(documents)["startupProbe"]
        # Where none is spare the one before ends first.
        slowest = (
            startup["periodSeconds"] * startup["failureThreshold"]
            + spec["minReadySeconds"]
            + pod_template(documents)["spec"]["terminationGracePeriodSeconds"]
        )
        self.assertGreater(spec["progressDeadlineSeconds"], slowest)

    def test_without_an_autoscaler_there_are_two_replicas(self):
        for name in ("cpu", "gpu"):  # with one, a rollout on GPUs is an outage
            self.assertEqual(deployment(overlay(name))["spec"]["replicas"], 2)

    @of_each_overlay
    def test_threads_leave_a_core_of_what_is_reserved(self, documents):
        resources = container(documents)["resources"]
        self.assertEqual(resources["requests"], resources["limits"])
        threads = config(documents)["engine"]["threads"]
        self.assertEqual(threads + 1, int(resources["limits"]["cpu"]))

    @of_each(*ON_CPU)
    def test_on_a_cpu_the_containers_memory_is_the_budget(self, documents):
        self.assertEqual(
            manifests.size_bytes(config(documents)["engine"]["memory_bytes"]),
            manifests.size_bytes(container(documents)["resources"]["limits"]["memory"]),
        )
        self.assertNotIn(GPU, container(documents)["resources"]["limits"])

    def test_on_a_gpu_a_replica_has_one_and_serves_on_nothing_else(self):
        documents = overlay("gpu")
        self.assertEqual(container(documents)["resources"]["limits"][GPU], 1)
        engine = config(documents)["engine"]
        self.assertEqual(engine["device"], "cuda")
        self.assertEqual(engine["memory_bytes"], 0)  # of the GPU, not of the container
        tolerated = pod_template(documents)["spec"]["tolerations"]
        self.assertEqual([toleration["key"] for toleration in tolerated], [GPU])

    def test_the_pages_patch_gives_an_operators_prometheus_the_label_that_it_selects(self):
        for kind in ("PodMonitor", "PrometheusRule"):
            labels = the(manifests.render(COMPOSED), kind)["metadata"]["labels"]
            self.assertEqual(labels["release"], "kube-prometheus-stack")
            self.assertNotIn("release", the(overlay("cpu"), kind)["metadata"]["labels"])
        text = read("tests/deploy/composed/kustomization.yaml")
        patch = text[text.index("patches:\n"):]
        self.assertIn(textwrap.indent(patch, "   "), read("deploy/README.md"))

    def check_autoscaler(self, documents, spec, low, high, behavior):
        workload = deployment(documents)
        self.assertNotIn("replicas", workload["spec"])  # an apply would undo the autoscaler
        self.assertEqual(
            spec["scaleTargetRef"],
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload["metadata"]["name"]},
        )
        self.assertGreaterEqual(spec[low], 2)
        self.assertGreater(spec[high], spec[low])
        (down,) = behavior["scaleDown"]["policies"]
        self.assertEqual((down["type"], down["value"]), ("Pods", 1))
        self.assertGreaterEqual(
            down["periodSeconds"],
            pod_template(documents)["spec"]["terminationGracePeriodSeconds"],
        )

    def test_the_autoscaler_asks_for_metrics_that_the_adapter_serves(self):
        documents = overlay("autoscale")
        spec = the(documents, "HorizontalPodAutoscaler")["spec"]
        self.check_autoscaler(documents, spec, "minReplicas", "maxReplicas", spec["behavior"])
        served = {}
        for rule in manifests.load("prometheus/adapter-rules.yaml")["rules"]:
            served[rule["name"]["as"]] = rule["seriesQuery"].partition("{")[0]
        asked = [metric["pods"]["metric"]["name"] for metric in spec["metrics"]]
        self.assertEqual(sorted(asked), sorted(served))
        self.assertLessEqual(set(served.values()), manifests.recorded())

    def test_keda_asks_for_recorded_series_of_its_namespace(self):
        documents = overlay("autoscale-keda")
        scaled = the(documents, "ScaledObject")
        spec = scaled["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self.check_autoscaler(documents, spec, "minReplicaCount", "maxReplicaCount", behavior)
        asked = {trigger["metadata"]["query"] for trigger in spec["triggers"]}
        namespace = scaled["metadata"]["namespace"]
        self.assertEqual(
            asked,
            {
                f'avg({series}{{namespace="{namespace}"}})'
                for series in ("asymserve:queue_seconds:mean2m", "asymserve:kv_use:ratio")
            },
        )
        self.assertLessEqual(
            {query.partition("(")[2].partition("{")[0] for query in asked}, manifests.recorded()
        )

    def test_both_autoscalers_have_the_same_targets(self):
        metrics = the(overlay("autoscale"), "HorizontalPodAutoscaler")["spec"]["metrics"]
        pods_targets = [metric["pods"]["target"]["averageValue"] for metric in metrics]
        self.assertTrue(all(target.endswith("m") for target in pods_targets))
        triggers = the(overlay("autoscale-keda"), "ScaledObject")["spec"]["triggers"]
        self.assertEqual(
            [int(target[:-1]) / 1000 for target in pods_targets],
            [float(trigger["metadata"]["threshold"]) for trigger in triggers],
        )

    @of_each_overlay
    def test_another_configuration_rolls_the_pods(self, documents):
        volumes = pod_template(documents)["spec"]["volumes"]
        (name,) = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
        self.assertRegex(name, r"^asymserve-config-[a-z0-9]{10}$")

    @of_each_overlay
    def test_the_operators_rules_are_those_of_the_rule_file(self, documents):
        spec = the(documents, "PrometheusRule")["spec"]
        self.assertEqual(spec, manifests.load("prometheus/rules.yaml"))

    def test_the_pods_user_is_the_images(self):
        self.assertIn("\nUSER 10001:10001\n", read("Dockerfile"))

    def test_a_release_tells_the_image_what_it_is(self):
        dockerfile = read("Dockerfile")
        before, *_, final = re.split(r"^FROM .*\n", dockerfile, flags=re.MULTILINE)
        labels = re.findall(r'image\.([a-z.]+)="\$\{(\w+)\}"', final)
        self.assertEqual(
            labels,
            [
                ("version", "VERSION"), ("revision", "REVISION"),
                ("base.name", "BASE"), ("base.digest", "BASE_DIGEST"),
            ],
        )
        for _, argument in labels:  # else it is empty whatever the release says
            self.assertRegex(final, rf"(?m)^ARG {argument}\b")
        base = "${BASE}${BASE_DIGEST:+@}${BASE_DIGEST}"  # what the labels say is what is taken
        self.assertIn(f"ARG BUILD_BASE={base}\n", before)
        self.assertEqual(
            re.findall(r"(?m)^FROM (\S+)", dockerfile), ["${BUILD_BASE}", base]
        )

    def test_the_page_passes_each_argument_of_a_release(self):
        passed = re.findall(r"--build-arg (\w+)=(\S+)", read("deploy/README.md"))
        self.assertEqual(
            {name for name, _ in passed}, {"VERSION", "REVISION", "BASE", "BASE_DIGEST"}
        )
        self.assertEqual(dict(passed)["VERSION"], VERSION)
        self.assertIn(f"\nARG BASE={dict(passed)['BASE']}\n", read("Dockerfile"))


if __name__ == "__main__":
    VERSION = subprocess.run(
        [sys.argv[1], "version"], check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    unittest.main(argv=sys.argv[:1], verbosity=2)
