"""Writes docs/benchmarks.md, its plots, and figures in other documents, from docs/benchmarks/results.json.

report.py [--merge FOLDER] [--check]
  --merge FOLDER  first takes the results of parts from FOLDER/*.json; other parts stay as they are
  --check         writes nothing; fails if the committed files are not those of the committed results
"""

import argparse
import json
import pathlib
import statistics
import sys

import charts
import figures
import texts

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "docs" / "benchmarks" / "results.json"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--merge", type=pathlib.Path)
    options.add_argument("--check", action="store_true")
    wanted = options.parse_args()
    parts = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() else {}
    if wanted.merge:
        parts.update({path.stem: json.loads(path.read_text()) for path in sorted(wanted.merge.glob("*.json"))})
    # `controller` and others may not have run yet; the order is that of the texts.
    parts = {name: parts[name] for name in texts.PARTS if name in parts}
    files = {RESULTS: json.dumps({"parts": parts}, indent=1, ensure_ascii=False) + "\n",
             ROOT / "docs" / "benchmarks.md": Page(parts).text()}
    for name, plot in plots(parts).items():
        files[ROOT / "docs" / "benchmarks" / f"{name}.svg"] = plot
    files.update(figures.in_documents(parts))
    if wanted.check:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"not what the results say: {', '.join(stale)}; run scripts/bench --report" if stale else 0)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text)


def good(samples):
    return [sample for sample in samples if sample is not None]


def middle(samples):
    return statistics.median(good(samples)) if good(samples) else None


def cell(row, who, own):
    """The median, the range, and netemctl's ratio to this peer."""
    samples = row["samples"].get(who)
    if samples is None:
        return "–"
    if not good(samples):
        return "failed"
    values = sorted(good(samples))
    text = charts.number(middle(values))
    if len(values) > 1 and values[0] != values[-1]:
        text += f" ({charts.number(values[0])} to {charts.number(values[-1])})"
    if len(values) < len(samples):
        text += f", {len(samples) - len(values)} of {len(samples)} failed"
    if who != "netemctl" and own and row["better"] and middle(values):
        text += f": **{charts.number(own / middle(values))}**"
    return text


def behind(row):
    """The peers that do better than netemctl, with the ratio; or, if netemctl failed, all of them."""
    own = middle(row["samples"].get("netemctl", []))
    for who, samples in row["samples"].items():
        other = middle(samples)
        if who == "netemctl" or not other or not row["better"] or who in texts.NO_PEERS or "netemctl" not in row["samples"]:
            continue
        if own is None:
            yield who, None
        elif (own > 1.05 * other) if row["better"] == "lower" else (own < other / 1.05):
            yield who, own / other


class Page:
    def __init__(self, parts):
        self.parts = parts

    def text(self):
        blocks = [texts.HEAD, self.setting(), self.losses()]
        for name, part in self.parts.items():
            blocks.append(self.part(name, part))
        return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"

    def setting(self):
        rows = ["| part | date | kernel | CPU | boot | rounds | took |", "|---|---|---|---|---|---|---|"]
        for name, part in self.parts.items():
            meta = part["meta"]
            rows.append(f"| {name} | {meta['date']} | {meta['kernel']} | {meta['cpu']}, {meta['cpus']} of {meta['host_cpus'] or meta['cpus']} | "
                        f"{meta['boot'][:8]} | {meta['rounds']}{', quick' if meta['quick'] else ''} | {meta['seconds']} s |")
        versions = {}
        for part in self.parts.values():
            for name, version in part["meta"]["versions"].items():
                versions.setdefault(version, name)
        return "## The machine\n\n" + "\n".join(rows) + "\n\nVersions: " + ", ".join(versions) + "."

    def losses(self):
        rows = []
        for name, part in self.parts.items():
            for row in part["rows"]:
                for who, ratio in behind(row):
                    rows.append((ratio or float("inf"), f"| {name} | {row['group']}: {row['work']} | {who} | "
                                 f"{charts.number(ratio) if ratio else 'netemctl failed'} |"))
        text = "## Where netemctl falls behind\n\n"
        if not rows:
            return text + "In no row of these tables."
        return (text + texts.BEHIND.strip() + "\n\n| part | work | peer | netemctl ÷ peer |\n|---|---|---|---|\n" +
                "\n".join(line for _, line in rows))

    def part(self, name, part):
        title, text, plots_of = texts.PARTS[name]
        blocks = [f"## {title}", text.strip()]
        blocks += [f"![{alt}](benchmarks/{file}.svg)" for file, alt in plots_of if (name, file) in available(self.parts)]
        for peers_of, rows in tables(part["rows"]):
            blocks.append(table(peers_of, rows))
        if part["notes"]:
            blocks.append("Failures and remarks of the run:\n\n" + "\n".join(f"- {note}" for note in part["notes"]))
        return "\n\n".join(blocks)


def tables(rows):
    """Rows with the same programs and unit share a table, in the order of their first row."""
    made = []
    for row in rows:
        who = list(row["samples"])
        who.sort(key=lambda name: (name != "netemctl", list(texts.ORDER).index(name) if name in texts.ORDER else 99, name))
        group = next((each for each in made if each[2] == row["group"]), None)
        if group is None:
            made.append(group := ([], [], row["group"]))
        group[1].append(row)
        group[0].extend(name for name in who if name not in group[0])
    # Groups with the same programs follow each other in one table.
    merged = []
    for programs, members, _ in made:
        programs = sorted(programs, key=lambda name: (name != "netemctl", list(texts.ORDER).index(name) if name in texts.ORDER else 99, name))
        if merged and merged[-1][0] == programs:
            merged[-1][1].extend(members)
        else:
            merged.append((programs, list(members)))
    return merged


def table(programs, rows):
    lines = ["| what | unit | " + " | ".join(programs) + " |", "|---|---|" + "---|" * len(programs)]
    for row in rows:
        own = middle(row["samples"].get("netemctl", []))
        cells = [cell(row, who, own) for who in programs]
        lines.append(f"| {row['group']}: {row['work']} | {row['unit'] or '–'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---- Plots ----


def point(row, who):
    values = good(row["samples"].get(who, []))
    return (statistics.median(values), min(values), max(values)) if values else None


def curves(rows, work, name=None):
    """For each program the points of the rows with this work, by their place."""
    series = {}
    for row in rows:
        if row["work"] != work or "at" not in row:
            continue
        for who in row["samples"]:
            if found := point(row, who):
                series.setdefault(f"{who}, {name}" if name else who, []).append((row["at"], *found))
    return {who: sorted(points) for who, points in series.items()}


def plots(parts):
    made = {}
    for (part, file), draw in PLOTS.items():
        if part in parts and (plot := draw(parts[part]["rows"])):
            made[file] = plot
    return made


def available(parts):
    return {key for key, draw in PLOTS.items() if key[0] in parts and draw(parts[key[0]]["rows"])}


def fleet_plot(nodes):
    def draw(rows):
        names = ["netemctl", "tc -batch", "tc -batch, nodes at once", "iptables"]
        shown = []
        for row in rows:
            if row["group"] == f"{nodes} nodes" and row["work"] != "status":
                cells = {who: point(row, who) for who in names if point(row, who)}
                if cells:
                    shown.append((row["work"], cells))
        order = ["apply", "re-apply", "one delay changes", "partition", "heal", "clear"]
        shown.sort(key=lambda each: order.index(each[0]))
        return shown and charts.dots(f"{nodes} nodes: each change of the whole fleet", "milliseconds (dot: median; bar: least to most)", shown, names)
    return draw


def line_plot(title, x_label, y_label, work, only=None):
    def draw(rows):
        rows = [row for row in rows if only is None or only in row["group"]]
        series = curves(rows, work)
        series = {who: series[who] for who in sorted(series, key=lambda name: name != "netemctl")}
        return any(len(each) > 1 for each in series.values()) and charts.lines(title, x_label, y_label, series)
    return draw


def destinations_plot(rows):
    works = ("apply", "one delay changes", "cut all others")
    series = {f"{who}, {work}": curves(rows, work, work).get(f"{who}, {work}") for who in ("netemctl", "tc -batch") for work in works}
    if not all(series.values()) or all(len(each) < 2 for each in series.values()):
        return None
    return charts.lines("One node: the time of a change by its destinations", "destinations", "milliseconds", series,
                        dashed=[name for name in series if name.startswith("tc")])


def tcp_plot(rows):
    names = ["netemctl", "plain netem", "without jitter", "netemctl, ± 5 ms", "plain netem, ± 5 ms"]
    shown = []
    for row in rows:
        if row["work"] != "first three seconds":
            cells = {who: quartiles(row["samples"][who]) for who in names if who in row["samples"]}
            shown.append((f"{row['group']}, {row['work'].split(' (')[0]}", cells))
    return shown and charts.dots("One TCP stream", "Mbit/s (dot: median; bar: the middle half of the runs)", shown, names)


def quartiles(samples):
    values = sorted(good(samples))
    if len(values) < 2:
        return (values[0],) * 3
    low, mid, high = statistics.quantiles(values, n=4, method="inclusive")
    return mid, low, high


PLOTS = {
    ("fleet", "fleet-9"): fleet_plot(9),
    ("fleet", "fleet-45"): fleet_plot(45),
    ("onset", "onset"): line_plot("A partition: how far apart six pairs lose their last packet", "nodes", "milliseconds", "spread over the pairs"),
    ("destinations", "destinations"): destinations_plot,
    ("packets", "packets"): line_plot("What a packet to the last destination costs", "destinations", "microseconds", "a packet to the last one"),
    ("packets", "profiles"): line_plot("What a packet costs while packets wait in many profiles", "busy profiles", "microseconds", "a packet"),
    ("accuracy", "accuracy"): line_plot("The mean error of the RTT", "destinations", "milliseconds", "mean error of the RTT"),
    ("tcp", "tcp"): tcp_plot,
    ("controller", "controller"): line_plot("The controller's CPU time for each node of a partition", "nodes", "milliseconds", "partition: CPU time a node", "that agree"),
}


if __name__ == "__main__":
    main()
