"""Which series a PromQL expression reads, and whether a scrape has them."""

import re

# Labels that the scraping Prometheus adds.
TARGET_LABELS = {"namespace", "job", "pod", "container", "instance", "endpoint"}
_NAME = r"\b(?:asymserve|vllm)[_:][a-zA-Z0-9_:]*"
_SELECTOR = re.compile(rf"({_NAME})\s*(?:\{{([^}}]*)\}})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_scrape(text):
    """[(name, labels, value)] of the text format."""
    samples = []
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = _SAMPLE.match(line).groups()
            samples.append((name, dict(_LABEL.findall(labels or "")), float(value)))
    return samples


def selectors(expression):
    """[(name, [(label, operator, value)])] of the expression, without the target's labels."""
    found = []
    for name, matchers in _SELECTOR.findall(expression):
        parsed = [
            (label, operator, value.replace("\\\\", "\\"))
            for label, operator, value in _MATCHER.findall(matchers)
        ]
        found.append((name, [item for item in parsed if item[0] not in TARGET_LABELS]))
    return found


def _holds(labels, label, operator, value):
    actual = labels.get(label, "")
    if operator in ("=", "!="):
        return (actual == value) == (operator == "=")
    return (re.fullmatch(value, actual) is not None) == (operator == "=~")


def matching(samples, name, matchers):
    """The samples that a selector reads."""
    return [
        sample
        for sample in samples
        if sample[0] == name and all(_holds(sample[1], *matcher) for matcher in matchers)
    ]


def labels_grouped_by(expression):
    """Labels named in `by (...)` clauses, without the target's."""
    found = set()
    for clause in re.findall(r"\bby\s*\(([^)]*)\)", expression):
        found |= {label.strip() for label in clause.split(",")}
    return found - TARGET_LABELS
