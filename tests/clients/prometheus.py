"""Reads a Prometheus text from standard input with the parser of prometheus_client; prints every family's name and
type, and fails when there is none."""
import sys

from prometheus_client.parser import text_string_to_metric_families

families = list(text_string_to_metric_families(open(sys.argv[1]).read()))
assert families, "no metric at all"
for family in families:
    assert family.type != "unknown", f"{family.name} has no TYPE"
    assert family.documentation, f"{family.name} has no HELP"
    print(family.name, family.type, len(family.samples))

# A histogram is one when its buckets grow, the last of them holds all, and there are a sum and a count.
for family in (family for family in families if family.type == "histogram"):
    series = {}
    for sample in family.samples:
        labels = {label: text for label, text in sample.labels.items() if label != "le"}
        of = series.setdefault(tuple(sorted(labels.items())), {"buckets": []})
        if sample.name.endswith("_bucket"):
            of["buckets"].append((float(sample.labels["le"]), sample.value))
        else:
            of[sample.name.rsplit("_", 1)[1]] = sample.value
    for labels, of in series.items():
        bounds = [bound for bound, _ in of["buckets"]]
        counts = [count for _, count in of["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), (labels, bounds)
        assert counts == sorted(counts) and counts[-1] == of["count"], (labels, counts)
        assert (of["sum"] > 0) == (of["count"] > 0), (labels, of)
    if family.name == "dkv_command_seconds":
        commands = {dict(labels)["command"]: of["count"] for labels, of in series.items()}
        assert all(commands.values()), commands
        print("commands", commands)
