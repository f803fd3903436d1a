"""Every alert has promtool tests of both kinds and its section of the runbook; no more are there."""

import os
import re
import unittest

import yaml

import manifests

SECTIONS = ("Symptom", "Cause", "What to do")


def rule_tests():
    path = os.path.join(os.path.dirname(__file__), "alerts.test.yaml")
    with open(path, encoding="utf-8") as file:
        tests = yaml.safe_load(file)["tests"]
    return [check for test in tests for check in test.get("alert_rule_test", [])]


def runbook():
    """{heading: body} of the sections of alerts."""
    with open(os.path.join(manifests.DEPLOY, "runbook.md"), encoding="utf-8") as file:
        parts = re.split(r"^## (Asymserve\w+)\n", file.read(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


class AlertsTest(unittest.TestCase):
    def test_each_alert_has_a_test_where_it_fires_and_one_where_it_does_not(self):
        fire = {check["alertname"] for check in rule_tests() if check["exp_alerts"]}
        quiet = {check["alertname"] for check in rule_tests() if not check["exp_alerts"]}
        self.assertEqual(fire, set(manifests.alerts()))
        self.assertEqual(quiet, set(manifests.alerts()))

    def test_the_runbook_has_one_section_for_each_alert(self):
        self.assertEqual(sorted(runbook()), sorted(manifests.alerts()))
        for alert, body in runbook().items():
            for section in SECTIONS:
                self.assertEqual(body.count(f"**{section}.**"), 1, f"{alert}: {section}")

    def test_each_alert_points_to_its_section(self):
        for name, alert in manifests.alerts().items():
            self.assertEqual(
                alert["annotations"]["runbook_url"], f"deploy/runbook.md#{name.lower()}"
            )
            self.assertIn(alert["labels"]["severity"], ("page", "ticket"))

    def test_the_pages_name_only_options_that_exist(self):
        with open(os.path.join(manifests.ROOT, "config/asymserve.yaml"), encoding="utf-8") as file:
            reference = yaml.safe_load(file)
        options = set()

        def collect(node, prefix):
            for key, value in node.items():
                options.add(prefix + key)
                if isinstance(value, dict):
                    collect(value, f"{prefix}{key}.")

        collect(reference, "")
        for page in ("runbook.md", "README.md"):
            with open(os.path.join(manifests.DEPLOY, page), encoding="utf-8") as file:
                named = set(re.findall(r"`((?:%s)\.[a-z_.]+)`" % "|".join(reference), file.read()))
            self.assertTrue(named)
            self.assertLessEqual(named, options, page)


if __name__ == "__main__":
    unittest.main(verbosity=2)
