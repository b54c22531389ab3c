"""DKV beside Valkey 9.1, redis 7 and the echo floor of the machine.

The machines this is run on are shared, so no absolute time means anything: each round measures every contender one after
the other, and what is printed are medians over the rounds and their ratios, each beside what it must not exceed. Run it with
`benches/compare`, which installs and builds what is needed."""
import argparse
import json
import os
import pathlib
import resource
import signal
import sys

import cluster
import copies
import cost
import generator
import latency
import memory
import reactors
import report
import shapes
import startup
from world import World

ROOT = pathlib.Path(__file__).resolve().parents[2]
# In this order: what is idle is measured before it is used, stalls are counted over all that came before.
SECTIONS = {
    "start": startup.measure,
    "idle": shapes.idle,
    "cpu": cost.measure,
    "latency": latency.measure,
    "mget": shapes.mget,
    "connections": shapes.connections,
    "forwarding": shapes.forwarding,
    "stalls": shapes.stalls,
    "cluster": cluster.measure,
    "copies": copies.measure,
    "io": reactors.measure,
    "generator": generator.measure,
    "memory": memory.measure,
}
# Several gigabytes and minutes: only when asked for.
ASKED_FOR = ["memory"]


def arguments():
    parser = argparse.ArgumentParser(
        prog="benches/compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--operations", type=int, default=1_000_000, help="operations of one measurement, a quarter of that without a pipeline (default 1000000)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in each server (default 1000000)")
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=f"this section alone, may be repeated: {', '.join(SECTIONS)}")
    parser.add_argument("--memory", action="store_true", help="also resident bytes per key, up to 20 million keys (needs 8 GiB, takes minutes)")
    parser.add_argument("--quick", action="store_true", help="everything once and tiny: shows that it works, measures nothing")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--json", metavar="FILE", help="also write all that was measured to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the tables as the README shows them")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--built", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is None:
        options.only = [name for name in SECTIONS if name not in ASKED_FOR or options.memory or options.quick]
    elif options.memory:
        options.only.append("memory")
    options.only = [name for name in SECTIONS if name in options.only]
    if options.quick:
        options.rounds, options.operations, options.keys = 1, 2_000, 2_000
    if min(options.rounds, options.operations, options.keys) < 1:
        parser.error("rounds, operations and keys are numbers from 1 up")
    if options.built is None:
        parser.error("start it with benches/compare, which builds what is measured")
    if os.geteuid() != 0:
        parser.error("run this as root: it makes a network namespace")
    return options


def main():
    options = arguments()
    # A way out that runs the ends of all `with` blocks, as Ctrl-C is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    conditions = report.conditions(options)
    sections = []
    with World(options) as world:
        for name in options.only:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            sections.append(SECTIONS[name](world))
            if not options.markdown:
                print(report.text(sections[-1]), flush=True)
    body = report.readme(sections, conditions)
    if options.markdown:
        print(body)
    if options.readme:
        report.write_readme(ROOT / "README.md", body)
    verdicts = report.verdicts(sections, options.quick)
    print(report.text(verdicts))
    print(conditions)
    if options.json:
        found = {section.name: section.data for section in sections}
        checks = [{"what": c.what, "value": c.value, "must": c.must, "goal": c.goal, "holds": c.holds} for s in sections for c in s.checks]
        pathlib.Path(options.json).write_text(json.dumps({"conditions": conditions, "sections": found, "checks": checks}, indent=1))
    if options.strict and not all(check.holds for section in sections for check in section.checks):
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
