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
