"""tools/sbom writes what CycloneDX 1.5 demands of a list of components, and refuses what is no package."""

import json
import os
import re
import subprocess
import unittest
from urllib.parse import unquote

import manifests

SBOM = os.path.join(manifests.ROOT, "tools/sbom")
SAMPLE = (
    ("libstdc++6", "12.2.0-14+deb12u1", "amd64", "gcc-12", "12.2.0-14+deb12u1"),
    ("libgrpc29", "1.51.1-3+b1", "amd64", "grpc", "1.51.1-3"),
    ("passwd", "1:4.13+dfsg1-1+deb12u1", "amd64", "shadow", "1:4.13+dfsg1-1+deb12u1"),
    ("tzdata", "2024a-0~deb12u1", "all", "tzdata", "2024a-0~deb12u1"),
)
PURL = re.compile(r"pkg:deb/debian/([A-Za-z0-9.%-]+)@([A-Za-z0-9.~%-]+)\?arch=([a-z0-9]+)")


def run(text):
    return subprocess.run([SBOM, "asymserve", "0.1.0"], input=text, capture_output=True, text=True)


class SbomTest(unittest.TestCase):
    def setUp(self):
        # In no order, and one of them twice: of two stages of the image.
        text = "".join("\t".join(package) + "\n" for package in SAMPLE + SAMPLE[1:2])
        made = run(text)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.document = json.loads(made.stdout)

    def test_it_says_what_it_is_and_of_what(self):
        self.assertEqual(self.document["bomFormat"], "CycloneDX")
        self.assertEqual(self.document["specVersion"], "1.5")
        self.assertEqual(self.document["version"], 1)
        about = self.document["metadata"]["component"]
        self.assertEqual((about["type"], about["name"], about["version"]), ("application", "asymserve", "0.1.0"))

    def test_each_package_is_a_component_once_with_its_url(self):
        components = self.document["components"]
        self.assertEqual(len(components), len(SAMPLE))
        found = set()
        for component in components:
            self.assertEqual(component["type"], "library")
            name, version, arch = PURL.fullmatch(component["purl"]).groups()
            self.assertEqual((component["name"], component["version"]), (unquote(name), unquote(version)))
            (source,) = [item["value"] for item in component["properties"]]
            found.add((unquote(name), unquote(version), arch, *source.split(" ")))
        self.assertEqual(found, set(SAMPLE))

    def test_the_server_depends_on_each_of_them(self):
        refs = [component["bom-ref"] for component in self.document["components"]]
        self.assertEqual(len(set(refs)), len(refs))
        (dependency,) = self.document["dependencies"]
        self.assertEqual(dependency["ref"], self.document["metadata"]["component"]["bom-ref"])
        self.assertEqual(sorted(dependency["dependsOn"]), sorted(refs))

    def test_the_same_packages_give_the_same_bytes(self):
        lines = ["\t".join(package) + "\n" for package in SAMPLE]
        self.assertEqual(run("".join(lines)).stdout, run("".join(reversed(lines))).stdout)

    def test_what_is_no_package_is_refused(self):
        for text in ("", "libc6\n", "libc6\t\tamd64\tglibc\t2\n", 'a"b\t1\tall\ta\t1\n'):
            refused = run(text)
            self.assertNotEqual(refused.returncode, 0, text)
            self.assertIn("sbom: ", refused.stderr)

    def test_the_format_for_dpkg_names_those_fields(self):
        fields = subprocess.run([SBOM, "--format"], check=True, capture_output=True, text=True).stdout
        self.assertEqual(
            fields.strip(),
            r"${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n",
        )

    def test_the_image_has_one(self):
        with open(os.path.join(manifests.ROOT, "Dockerfile"), encoding="utf-8") as file:
            final = file.read().rpartition("\nFROM ")[2]
        self.assertRegex(final, r'dpkg-query -W -f "\$\(\./sbom --format\)"')
        self.assertIn("> sbom.cdx.json && test -s sbom.cdx.json", final)


if __name__ == "__main__":
    unittest.main(verbosity=2)
