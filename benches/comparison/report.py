"""Tables: what a section found, as text for people, as Markdown for the README, as JSON for programs."""
import dataclasses
import datetime
import os
import pathlib
import platform

# Medians that differ by less say nothing on a machine that is shared.
NOISE = 1.03
# What stands around the measured part of the README.
README_BEGIN, README_END = "<!-- measured: begin (benches/compare --readme) -->", "<!-- measured: end -->"


@dataclasses.dataclass
class Check:
    """A number beside what it must not exceed."""

    what: str
    value: float
    must: float
    goal: float = None

    @property
    def holds(self):
        return self.value <= self.must

    @property
    def verdict(self):
        if not self.holds:
            return "MISSED"
        return "goal" if self.goal is not None and self.value <= self.goal else "must"

    def bounds(self):
        return f"≤ {self.must:g}" + (f" (goal {self.goal:g})" if self.goal is not None else "")


@dataclasses.dataclass
class Section:
    """A table with the checks that its numbers went through. The README shows the columns that `markdown` names, or `facts`
    in place of the table; and `losses`, which say where DKV is worse than another."""

    name: str
    title: str
    columns: list
    rows: list
    checks: list = dataclasses.field(default_factory=list)
    data: object = None
    markdown: list = None
    facts: list = None
    losses: list = dataclasses.field(default_factory=list)


def text(section):
    lines = [[str(cell) for cell in line] for line in [section.columns, *section.rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(section.columns))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([f"== {section.title}", *shown, ""])


def markdown(section):
    chosen = [section.columns.index(name) for name in section.markdown or section.columns]
    cells = [[section.columns[i] for i in chosen], ["---"] * len(chosen)]
    cells += [[str(row[i]) for i in chosen] for row in section.rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return f"{section.title}:\n\n{table}\n"


def loss(what, own, others, unit, less_is_better=True):
    """A sentence when one of the others is clearly better than DKV, in a list; else an empty list."""
    worse = {
        name: value for name, value in others.items() if (own > value * NOISE if less_is_better else own * NOISE < value)
    }
    beside = ", ".join(f"{name} {number(value)}" for name, value in worse.items())
    return [f"{what}: DKV {number(own)} {unit}, {beside}"] if worse else []


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def readme(sections, conditions):
    """The measured part of the README, whole."""
    parts = [f"{conditions[0].upper()}{conditions[1:]}. Measured on {datetime.date.today():%Y-%m-%d}.\n"]
    parts += [markdown(section) for section in sections if section.facts is None]
    missed = [check for section in sections for check in section.checks if not check.holds]
    if missed:
        parts.append("Bounds that this run missed:\n")
        parts.append("\n".join(f"- {check.what}: {check.value:.3g}, bound {check.bounds()}" for check in missed) + "\n")
    facts = [fact for section in sections for fact in section.facts or []]
    if facts:
        parts.append("\n".join(f"- {fact}" for fact in facts) + "\n")
    losses = [sentence for section in sections for sentence in section.losses]
    if losses:
        parts.append("Where DKV loses to Valkey or redis in this run (medians that differ by more than 3 %):\n")
        parts.append("\n".join(f"- {sentence}" for sentence in losses) + "\n")
    else:
        parts.append("Nowhere in these does DKV lose to Valkey or redis by more than 3 %.\n")
    return "\n".join(parts)


def write_readme(path, body):
    """Puts the measured part between its marks."""
    before, rest = path.read_text().split(README_BEGIN)
    _, after = rest.split(README_END)
    path.write_text(f"{before}{README_BEGIN}\n{body}{README_END}{after}")


def verdicts(sections, quick):
    """All checks in one table."""
    checks = [check for section in sections for check in section.checks]
    rows = [[check.what, f"{check.value:.3g}", check.bounds(), check.verdict] for check in checks]
    missed = sum(not check.holds for check in checks)
    title = f"what must hold: {len(checks) - missed} of {len(checks)} do"
    title += " (of a run with --quick, which measures nothing)" if quick else ""
    return Section("verdicts", title, ["what", "measured", "bound", "verdict"], rows)


def conditions(options):
    """What the numbers depend on, in one sentence each."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} CPUs ({cpu}), kernel {platform.release()}, load average {load} at the start; "
        f"medians of {options.rounds} interleaved rounds; {options.keys:,} keys of 16 bytes, 50 connections; "
        "server on CPU 0, client on CPU 1"
    )
