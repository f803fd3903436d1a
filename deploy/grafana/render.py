"""Draws dashboard.svg beside it: main panels of the dashboard, with what a real Prometheus scraped from the real
server under a load that rises past what it can do and falls again.

    build/release/deploy/bin/python deploy/grafana/render.py            # five minutes
    build/release/deploy/bin/python deploy/grafana/render.py --redraw   # the data of the newest run again

Needs Prometheus, the release build and the default model: `tools/install-deps deploy`, then `tools/test`. Use
a quiet machine: the load takes all its cores.

The server runs as `tools/run` starts it, but for a KV cache that such a load can fill and a canary that looks
at more than one request in a thousand. bench_serve measures its capacity, calls completed per second
of 32 calls at any time, and then sends Poisson arrivals at the shares of it in LAYERS. Every text is checked;
nothing is drawn after a wrong one. The expressions, titles, units and legends are those of asymserve.json, with its
variables as tests/deploy/dashboard_test.py fills them in. A series that is 0 all the time is left out.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.sax.saxutils

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests/deploy"))
import dashboard_test
import manifests
from server import Server

PICTURE = os.path.join(HERE, "dashboard.svg")
DATA = os.path.join(ROOT, "build/dashboard-data.json")
BIN = os.path.join(ROOT, "build/release/bin")
MODEL = os.path.join(ROOT, ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
PROFILE = os.path.join(ROOT, "config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv")
SETS = (f"kv.profile={PROFILE}", "engine.kv_memory_bytes=256MiB", "kv.quality.canary_rate=0.2")

PANELS = (
    "Sequences", "Refusals by reason", "In the queue", "Time to first token", "Between tokens",
    "Tokens per second", "Used share", "Canary: KL of live tokens",
)
# Generators that add up: (share of the capacity, first stage, stage before which it ends).
LAYERS = ((0.4, 0, 5), (0.4, 1, 4), (0.4, 2, 4), (0.8, 3, 4))
STAGES = [sum(share for share, first, end in LAYERS if first <= i < end) for i in range(5)]
STAGE_SECONDS = 40
STEP_SECONDS = 2  # between two points of a line


# ---- the run


def bench_serve(server, answers, *arguments):
    command = [os.path.join(BIN, "bench_serve"), "--address", server.address, "--answers", answers]
    return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.DEVNULL)


def wait_for(loads):
    for load in loads:
        if load.wait() != 0:
            sys.exit(f"bench_serve ended with {load.returncode}")


def measure_capacity(server, answers, directory):
    """Calls per second. The answers are fetched first."""
    path = os.path.join(directory, "capacity.json")
    wait_for([bench_serve(server, answers, "--closed", 32, "--seconds", 20, "--json", path)])
    with open(path, encoding="utf-8") as file:
        return json.load(file)["completed_per_second"]


def run_load(server, answers, capacity):
    """When it began."""
    began = time.time()
    loads = []
    try:
        for share, first, end in LAYERS:  # in the order of their beginnings
            time.sleep(max(0, began + STAGE_SECONDS * first - time.time()))
            loads.append(bench_serve(
                server, answers, "--rate", share * capacity, "--seconds", STAGE_SECONDS * (end - first),
                "--warmup-seconds", 0, "--tail-seconds", 0,
            ))
        wait_for(loads)
    finally:
        for load in loads:
            load.kill()
    return began


def substituted(expression):
    for variable, value in (
        ("$namespace", dashboard_test.TARGET["namespace"]),
        ("$job", dashboard_test.JOB),
        ("$__rate_interval", "20s"),
    ):
        expression = expression.replace(variable, value)
    return expression


def panels_with_rows():
    """[(panel, title of its row)] of PANELS, in that order."""
    row, found = "", {}
    for panel in manifests.load("grafana/asymserve.json")["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found[panel["title"]] = (panel, row)
    return [found[title] for title in PANELS]


def series_of(prometheus, target, began, seconds):
    """[{name, values}] with a value, or None, for each STEP_SECONDS."""
    answer = prometheus.get(
        "query_range", query=substituted(target["expr"]), start=began, end=began + seconds, step=STEP_SECONDS
    )
    found = []
    for item in answer["result"]:
        name = target["legendFormat"]
        for label, value in item["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        values = [None] * (round(seconds / STEP_SECONDS) + 1)
        for at, value in item["values"]:
            if math.isfinite(float(value)):
                values[round((at - began) / STEP_SECONDS)] = float(value)
        found.append({"name": name, "values": values})
    return found


def collect():
    seconds = STAGE_SECONDS * len(STAGES)
    with tempfile.TemporaryDirectory() as directory:
        answers = os.path.join(directory, "answers.json")
        server = Server(os.path.join(BIN, "asymserve"), "--model", MODEL, sets=SETS)
        prometheus = None
        try:
            capacity = measure_capacity(server, answers, directory)
            prometheus = dashboard_test.Prometheus(directory, server.metrics)
            prometheus.wait_for("asymserve:kv_use:ratio")
            print(f"capacity {capacity:.2f} requests/s; the load takes {seconds} s", flush=True)
            began = run_load(server, answers, capacity)
            panels = {}
            for panel, _ in panels_with_rows():
                lines = [
                    line for target in panel["targets"] for line in series_of(prometheus, target, began, seconds)
                ]
                panels[panel["title"]] = lines
            if server.stop() != 0:
                sys.exit("the server ended badly")
        finally:
            server.kill()
            if prometheus:
                prometheus.stop()
    return {"capacity": capacity, "cores": len(os.sched_getaffinity(0)), "panels": panels}


# ---- the picture

WIDTH, COLUMNS, MARGIN, GAP = 960, 2, 14, 12
HEAD, PANEL_HEIGHT = 66, 232
PANEL_WIDTH = (WIDTH - 2 * MARGIN - GAP * (COLUMNS - 1)) / COLUMNS
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 36, 58  # of the lines inside a panel
COLORS = ("#3583d6", "#d9672c", "#1e9e62", "#8a5cd1", "#b0883c", "#c2437a", "#868e99", "#14929e")
CHARACTER = 6.6  # width of one, in the legend
STYLE = (
    "<style>.card{fill:#ffffff;stroke:#d0d4da}.ink{fill:#1f2328}.soft{fill:#59626d}.grid{stroke:#e1e4e8}"
    ".axis{stroke:#59626d}text{font-family:sans-serif;font-size:12px}.line{fill:none;stroke-width:1.6}"
    "@media (prefers-color-scheme:dark){.card{fill:#14181d;stroke:#3a414a}.ink{fill:#e6e9ed}"
    ".soft{fill:#a3acb7}.grid{stroke:#2a3038}.axis{stroke:#a3acb7}}</style>"
)


def text(x, y, content, style="soft", anchor="start", size=12):
    content = xml.sax.saxutils.escape(content)
    more = "" if size == 12 else f' style="font-size:{size}px"'
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{content}</text>'


def formatted(value, unit):
    if unit == "percentunit":
        return f"{100 * value:.4g}%"
    if unit == "s":
        return f"{value:.4g} s" if value >= 1 or value == 0 else f"{1000 * value:.4g} ms"
    number = f"{value / 1000:.4g} K" if value >= 1000 else f"{value:.4g}"
    return {"short": number, "reqps": f"{number} req/s"}[unit]


def ticks(most):
    """From 0 to at least `most`, at round values."""
    rough = (most or 1) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [i * step for i in range(math.ceil((most or 1) / step - 1e-9) + 1)]


def path(points):
    """SVG's words for a line with gaps."""
    words, drawn = [], False
    for point in points:
        if point:
            words.append(f"{'L' if drawn else 'M'}{point[0]:.1f} {point[1]:.1f}")
        drawn = bool(point)
    return "".join(words)


def stacked(series):
    below, result = [0.0] * len(series[0]["values"]), []
    for line in series:
        top = [low + (value or 0) for low, value in zip(below, line["values"])]
        result.append({"name": line["name"], "values": top, "below": below})
        below = top
    return result


def legend(series, x, y):
    parts, at = [], x
    for line, color in zip(series, COLORS):
        width = 22 + CHARACTER * len(line["name"]) + 12
        if at > x and at + width > x + PANEL_WIDTH - 28:
            at, y = x, y + 17
        parts.append(f'<rect x="{at:.1f}" y="{y - 5:.1f}" width="14" height="3" fill="{color}"/>')
        parts.append(text(at + 19, y, line["name"]))
        at += width
    return parts


def draw_panel(panel, row, series, left, top):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    series = [line for line in series if any(line["values"])] or series[:1]
    if series and custom["stacking"]["mode"] == "normal":
        series = stacked(series)
    if len(series) > len(COLORS):
        sys.exit(f"{panel['title']}: more series than colours")
    parts = [
        f'<rect class="card" x="{left:.1f}" y="{top:.1f}" width="{PANEL_WIDTH:.1f}" height="{PANEL_HEIGHT}" rx="6"/>',
        text(left + 14, top + 22, panel["title"], "ink", size=14),
        text(left + PANEL_WIDTH - 14, top + 22, row, anchor="end"),
    ]
    x0, x1 = left + LEFT, left + PANEL_WIDTH - RIGHT
    y0, y1 = top + PANEL_HEIGHT - BOTTOM, top + TOP
    marks = ticks(max((value for line in series for value in line["values"] if value is not None), default=0))

    def x_of(step):
        return x0 + (x1 - x0) * step * STEP_SECONDS / (STAGE_SECONDS * len(STAGES))

    def y_of(value):
        return y0 + (y1 - y0) * value / marks[-1]

    for mark in marks:
        style = "grid" if mark else "axis"
        parts.append(f'<line class="{style}" x1="{x0:.1f}" y1="{y_of(mark):.1f}" x2="{x1:.1f}" y2="{y_of(mark):.1f}"/>')
        parts.append(text(x0 - 6, y_of(mark) + 4, formatted(mark, unit), anchor="end"))
    for i in range(len(STAGES) + 1):
        x = x_of(i * STAGE_SECONDS / STEP_SECONDS)
        at = f"{i * STAGE_SECONDS // 60}:{i * STAGE_SECONDS % 60:02}"
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{y1:.1f}" x2="{x:.1f}" y2="{y0:.1f}"/>')
        parts.append(text(x, y0 + 15, at, anchor="middle"))
    for line, color in reversed(list(zip(series, COLORS))):  # the first on top of the others
        points = [None if v is None else (x_of(i), y_of(v)) for i, v in enumerate(line["values"])]
        if "below" in line:
            under = [(x_of(i), y_of(v)) for i, v in enumerate(line["below"])]
            opacity = custom["fillOpacity"] / 100
            parts.append(f'<path d="{path(points + under[::-1])}Z" fill="{color}" fill-opacity="{opacity}"/>')
        parts.append(f'<path class="line" d="{path(points)}" stroke="{color}"/>')
    return parts + legend(series, left + 14, y0 + 34)


def draw(data):
    shares = ", ".join(f"{100 * share:.0f}" for share in STAGES[:-1]) + f", then {100 * STAGES[-1]:.0f} %"
    rows = math.ceil(len(PANELS) / COLUMNS)
    height = HEAD + rows * (PANEL_HEIGHT + GAP) - GAP + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img">',
        "<title>The dashboard of AsymServe under a load that rises past its capacity</title>", STYLE,
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        text(MARGIN + 2, 28, manifests.load("grafana/asymserve.json")["title"], "ink", size=17),
        text(MARGIN + 2, 50, f"SmolLM2-135M-Instruct on {data['cores']} cores that it shares with its clients. "
             f"Arrivals at {shares} of capacity ({data['capacity']:.1f} requests/s), {STAGE_SECONDS} seconds each."),
    ]
    for i, (panel, row) in enumerate(panels_with_rows()):
        left = MARGIN + i % COLUMNS * (PANEL_WIDTH + GAP)
        top = HEAD + i // COLUMNS * (PANEL_HEIGHT + GAP)
        parts += draw_panel(panel, row, data["panels"][panel["title"]], left, top)
    with open(PICTURE, "w", encoding="utf-8") as file:
        file.write("\n".join(parts + ["</svg>", ""]))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redraw", action="store_true", help="no run: the data of the newest one")
    if not parser.parse_args().redraw:
        data = collect()
        with open(DATA, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
    with open(DATA, encoding="utf-8") as file:
        draw(json.load(file))
    print(f"{os.path.relpath(PICTURE, ROOT)}: {os.path.getsize(PICTURE)} bytes")


if __name__ == "__main__":
    main()
