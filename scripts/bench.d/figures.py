"""Figures of the results in other documents, between comments."""

import pathlib
import re
import statistics
import textwrap

from charts import number

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BETWEEN = r"(<!-- begin of figures: {name} -->\n).*?(<!-- end of figures: {name} -->\n)"

WITHOUT, OURS, PLAIN = "without jitter", "netemctl, ± 5 ms", "plain netem, ± 5 ms"
ONE_WAY, BOTH = "20 ms one way", "20 ms each way"
FIRST, STEADY = "first second", "steady"


def in_documents(parts):
    """The documents with new figures, by path. A part without results leaves its figures as they are."""
    found = {}
    if "tcp" in parts:
        for path, text in {"README.md": tcp_text(parts["tcp"]), "docs/links.md": tcp_table(parts["tcp"])}.items():
            before = (ROOT / path).read_text()
            pattern = BETWEEN.format(name=re.escape(f"tcp in {path}"))
            after, count = re.subn(pattern, lambda match, text=text: match[1] + "\n" + text + "\n" + match[2], before, flags=re.DOTALL)
            if count != 1:
                raise SystemExit(f"{path} has no place for the figures of tcp")
            found[ROOT / path] = after
    return found


class Tcp:
    def __init__(self, part):
        self.rows = {(row["group"], row["work"].split(" (")[0]): row["samples"] for row in part["rows"]}

    def quartiles(self, group, work, who):
        values = sorted(value for value in self.rows[group, work][who] if value is not None)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return [number(float(f"{value:.3g}")) for value in (middle, low, high)]

    def median(self, group, work, who):
        return self.quartiles(group, work, who)[0]

    def runs(self):
        return max(len(samples) for row in self.rows.values() for samples in row.values())


def tcp_text(part):
    tcp = Tcp(part)
    def three(group, work):
        return [tcp.median(group, work, who) for who in (OURS, PLAIN, WITHOUT)]
    one, both = three(ONE_WAY, STEADY), three(BOTH, STEADY)
    first_one, first_both = three(ONE_WAY, FIRST), three(BOTH, FIRST)
    sentences = (
        f"One TCP stream at 20 ms ± 5 ms, one way, has {one[0]} Mbit/s by netemctl, {one[1]} Mbit/s by plain `tc netem`, and {one[2]} "
        f"Mbit/s without jitter. With jitter both ways, it has {both[0]}, {both[1]} and {both[2]} Mbit/s. Jitter that keeps the order "
        f"prolongs the slow start: in the first second, the stream has {first_one[0]}, {first_one[1]} and {first_one[2]} Mbit/s one way, "
        f"and {first_both[0]}, {first_both[1]} and {first_both[2]} Mbit/s both ways. (Medians of {tcp.runs()} runs; "
        "[docs/benchmarks.md](docs/benchmarks.md) has their range.)")
    return textwrap.fill(sentences, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def tcp_table(part):
    tcp = Tcp(part)
    lines = [f"One TCP stream at 20 ms ± 5 ms, normal ([benchmarks.md](benchmarks.md); Mbit/s, median and middle half of {tcp.runs()} runs):",
             "", "| delay and jitter | time | no jitter | ± 5 ms by netemctl | ± 5 ms by plain `tc netem` |", "|---|---|---|---|---|"]
    for group, direction in ((ONE_WAY, "one way"), (BOTH, "both ways")):
        for work, when in ((FIRST, "first second"), (STEADY, "seconds 5 and 6")):
            cells = ["{} ({} to {})".format(*tcp.quartiles(group, work, who)) for who in (WITHOUT, OURS, PLAIN)]
            lines.append(f"| {direction} | {when} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
