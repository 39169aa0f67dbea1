"""Lints the dashboard, and shows that each rule finds what it is for.

The rules are the main ones of Grafana's own dashboard linter, and that panels do not lie over each other.
"""

import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent
PATH = FOLDER / "dashboards" / "sluicegate.json"
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})")
COUNTER = re.compile(r"\b([a-z_]+_(?:total|bucket|sum|count))\{")


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard):
    """(panel's title, expression) of all that is asked."""
    return [(panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel["targets"]]


def concrete(expression, job, interval="2m", span="10m"):
    """The expression as Prometheus gets it."""
    values = {"$job": job, "$__rate_interval": interval, "$__range": span}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


# Rules: each yields what is wrong.

def templates(dashboard):
    kinds = {v["name"]: v for v in dashboard["templating"]["list"]}
    if kinds.get("datasource", {}).get("type") != "datasource":
        yield "there is no variable for the data source"
    if "label_values(sluicegate_build_info, job)" != kinds.get("job", {}).get("definition"):
        yield "there is no variable for the job"


def datasources(dashboard):
    for panel in panels(dashboard):
        for part in [panel, *panel["targets"]]:
            if part.get("datasource", {}).get("uid") != "${datasource}":
                yield f"{panel['title']}: its data source is fixed"


def words(dashboard):
    for panel in panels(dashboard):
        for field in ("title", "description"):
            if not panel.get(field, "").strip():
                yield f"panel {panel['id']} has no {field}"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{panel.get('title')}: no unit"


def identities(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    titles = [panel["title"] for panel in dashboard["panels"]]
    if dashboard.get("uid") != "sluicegate-fleet" or dashboard.get("id") is not None:
        yield "the uid is not fixed, or an id is left in"
    for section in set(titles):
        places = [p for p in dashboard["panels"] if p["title"] == section]
        if len(places) > 1 and len({p["type"] for p in places}) < len(places):
            yield f"{section}: two panels of one title and kind"


def fixed(dashboard):
    if dashboard.get("editable") is not False:
        yield "it can be edited in place, where changes are lost"


def job_matchers(dashboard):
    for title, expression in expressions(dashboard):
        bare = re.sub(r"\{[^}]*\}", "", expression)
        named = re.findall(r"\b(?:sluicegate_|process_|job:)[a-z0-9_:]+", bare)
        matched = [name for name, matchers in SELECTOR.findall(expression) if 'job=~"$job"' in matchers]
        if sorted(named) != sorted(matched):
            yield f"{title}: a metric is not limited to the job: {expression}"


def windows(dashboard):
    for title, expression in expressions(dashboard):
        for window in re.findall(r"\[([^\]]+)\]", expression):
            if window not in ("$__rate_interval", "$__range"):
                yield f"{title}: the window {window} does not follow the screen"


def counters(dashboard):
    for title, expression in expressions(dashboard):
        for name in COUNTER.findall(expression):
            if not re.search(rf"\b(?:rate|increase)\({name}\{{", expression):
                yield f"{title}: the counter {name} is shown without a rate"


def quantiles(dashboard):
    for title, expression in expressions(dashboard):
        if "histogram_quantile" in expression and not re.search(r"sum by \([^)]*\ble\b", expression):
            yield f"{title}: a quantile is not summed by le"


def grid(dashboard):
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']}: beyond the right edge"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']} lies over {other}"


def syntax(dashboard):
    """As recording rules, for promtool to read."""
    rules = [
        {"record": f"expression{n}", "expr": concrete(expression, "orders")}
        for n, (_, expression) in enumerate(expressions(dashboard))
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    if done.returncode != 0:
        yield done.stdout + done.stderr


RULES = [templates, datasources, words, identities, fixed, job_matchers, windows, counters, quantiles, grid, syntax]

# What each rule is there to find.
MISTAKES = {
    templates: lambda d: d["templating"]["list"].pop(),
    datasources: lambda d: panels(d)[3]["targets"][0].update(datasource={"type": "prometheus", "uid": "abc"}),
    words: lambda d: panels(d)[5].update(description=" "),
    identities: lambda d: panels(d)[1].update(id=panels(d)[0]["id"]),
    fixed: lambda d: d.update(editable=True),
    job_matchers: lambda d: panels(d)[6]["targets"].append({"refId": "Z", "expr": "sum(sluicegate_leases_held)"}),
    windows: lambda d: ask(d, 'sum(rate(sluicegate_events_read_total{job=~"$job"}[5m]))'),
    counters: lambda d: ask(d, 'sum(sluicegate_events_read_total{job=~"$job"})'),
    quantiles: lambda d: ask(d, 'histogram_quantile(0.9, rate(sluicegate_failover_gap_seconds_bucket{job=~"$job"}[$__rate_interval]))'),
    grid: lambda d: panels(d)[7]["gridPos"].update(panels(d)[6]["gridPos"]),
    syntax: lambda d: ask(d, 'sum(rate(sluicegate_events_read_total{job=~"$job"}[$__rate_interval])'),
}


def ask(dashboard, expression):
    panels(dashboard)[6]["targets"][0]["expr"] = expression


def main():
    dashboard = json.loads(PATH.read_text())
    found = [problem for rule in RULES for problem in rule(dashboard)]
    for rule in RULES:
        broken = copy.deepcopy(dashboard)
        MISTAKES[rule](broken)
        if not list(rule(broken)):
            found.append(f"the rule {rule.__name__} does not find the mistake that it is for")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
