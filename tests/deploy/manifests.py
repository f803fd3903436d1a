"""The manifests of deploy/ as `kubectl kustomize` renders them, and the rule files beside them."""

import functools
import os
import re
import subprocess
import sys

import yaml

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
DEPLOY = os.path.join(ROOT, "deploy")
OVERLAYS = ("cpu", "gpu", "autoscale", "autoscale-keda", "mtls")
COMPOSED = os.path.join(ROOT, "tests/deploy/composed")  # of an overlay and components
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@functools.cache
def render(folder):
    """The documents of deploy/kustomize/`folder`, or of an absolute path."""
    kubectl = os.path.join(os.path.dirname(sys.executable), "kubectl")
    run = subprocess.run(
        [kubectl, "kustomize", os.path.join(DEPLOY, "kustomize", folder)],
        capture_output=True,
        text=True,
    )
    if run.returncode != 0 or run.stderr:  # it warns about deprecated fields
        raise RuntimeError(f"kubectl kustomize {folder}: {run.stderr}")
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def overlay(name):
    return render(os.path.join("overlays", name))


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def the(documents, kind, name=None):
    """The only document of a kind, or the one of that name."""
    found = [
        document
        for document in of_kind(documents, kind)
        if name is None or document["metadata"]["name"] == name
    ]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} documents of kind {kind}, name {name}")
    return found[0]


def deployment(documents):
    return the(documents, "Deployment")


def pod_template(documents):
    return deployment(documents)["spec"]["template"]


def container(documents):
    containers = pod_template(documents)["spec"]["containers"]
    if len(containers) != 1:
        raise AssertionError("the tests expect one container")
    return containers[0]


def config_text(documents):
    """The server's configuration: the file that the container's arguments name."""
    server = container(documents)
    path = server["args"][server["args"].index("--config") + 1]
    mount = next(
        mount for mount in server["volumeMounts"] if path.startswith(mount["mountPath"] + "/")
    )
    volume = next(
        volume
        for volume in pod_template(documents)["spec"]["volumes"]
        if volume["name"] == mount["name"]
    )
    data = the(documents, "ConfigMap", volume["configMap"]["name"])["data"]
    return data[os.path.relpath(path, mount["mountPath"])]


def arguments_set(arguments):
    """{section.name: value} of the options that follow --set, which are stronger than the file."""
    pairs = [arguments[i + 1] for i, argument in enumerate(arguments) if argument == "--set"]
    return dict(pair.split("=", 1) for pair in pairs)


def config(documents):
    """What the server goes by: its configuration file and its arguments."""
    options = yaml.safe_load(config_text(documents))
    for name, value in arguments_set(container(documents)["args"]).items():
        *sections, key = name.split(".")
        node = options
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = yaml.safe_load(value)
    return options


def component_arguments(name):
    """The arguments that a component adds."""
    patches = load(f"kustomize/components/{name}/kustomization.yaml")["patches"]
    operations = [item for patch in patches for item in yaml.safe_load(patch.get("patch", "[]"))]
    return [item["value"] for item in operations if "/args/" in item["path"]]


def component_container(name):
    """What a component changes in the server's container."""
    patch = load(f"kustomize/components/{name}/deployment.yaml")
    (found,) = patch["spec"]["template"]["spec"]["containers"]
    return found


def size_bytes(text):
    """A size as Kubernetes or the server's configuration writes it."""
    number, unit = re.fullmatch(r"(\d+)([KMGT]i)?B?", str(text)).groups()
    return int(number) * 1024 ** ("KMGT".index(unit[0]) + 1 if unit else 0)


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def load(path):
    with open(os.path.join(DEPLOY, path), encoding="utf-8") as file:
        return yaml.safe_load(file)


def rules():
    return [rule for group in load("prometheus/rules.yaml")["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded():
    return {rule["record"] for rule in rules() if "record" in rule}
