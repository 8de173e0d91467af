"""Ten claims about the network that netemctl makes, each with a witness. Run by scripts/fidelity."""

import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "bench.d"))

from host import NETEMCTL, ROOT, Failed, about, agents, end_all, inside, lab, on_signals, run, spawn  # noqa: E402
from peers import lab_v4  # noqa: E402

TOPOLOGY = ROOT / "topologies" / "hierarchical-9.toml"

# The largest time that a busy machine may add to a median, in ms.
SLACK = 3


def netemctl(*words, expect=(0,)):
    return json.loads(run([NETEMCTL, "--json", *words], expect=expect))


def ping(source, target, count, interval, expect=(0, 1)):
    """The RTTs in ms of the requests that were answered."""
    out = run(inside(f"n{source}", "ping", "-n", "-c", count, "-i", interval, "-W", 2, lab_v4(target)), expect=expect)
    return [float(found) for found in re.findall(r"time=([0-9.]+)", out)]


def iperf(source, target, *words):
    """The JSON document of an iperf3 server in one node, for a client in another node."""
    server = spawn(inside(f"n{target}", "iperf3", "-s", "-1", "-J"), stdout=-1, text=True)
    time.sleep(0.5)
    run(inside(f"n{source}", "iperf3", "-c", lab_v4(target), *words))
    return json.loads(server.communicate(timeout=30)[0])


def plain():
    netemctl("apply", "--fresh", TOPOLOGY)


class Claims:
    """Each method checks one claim. It returns the claim, the command, the witness, what is wanted, what was measured, and
    whether both agree."""

    def __init__(self, quick):
        self.few = quick

    def count(self, few, many):
        return few if self.few else many

    def delay(self):
        rows, good = [], True
        for target, wanted in ((2, 20), (4, 150)):
            own = netemctl("verify", "--pairs", f"n1:n{target}", "--tolerance", 10, expect=(0, 4))
            own = statistics.median(each["median_rtt_ms"] for each in own["pairs"][0]["measured"])
            witness = statistics.median(ping(1, target, self.count(20, 60), 0.05))
            rows.append(f"{witness:.2f} ms (verify: {own:.2f} ms)")
            good &= all(wanted - 0.2 <= each <= wanted + SLACK for each in (own, witness))
        return ("A link has its delay", "netemctl verify", "ping", "20 ms, 150 ms", ", ".join(rows), good)

    def jitter(self):
        netemctl("set", "n1", "n2", "jitter=4ms")
        own = netemctl("verify", "--pairs", "n1:n2", "--tolerance", 50, "--count", 20, expect=(0, 4))
        wanted = own["pairs"][0]["wanted_deviation_ns"] / 1e6
        times = ping(1, 2, self.count(60, 200), 0.05)
        measured = statistics.stdev(times)
        return ("A link has its jitter", "netemctl set n1 n2 jitter=4ms", "ping", f"standard deviation {wanted:.2f} ms",
                f"{measured:.2f} ms", 0.6 * wanted <= measured <= 1.4 * wanted + SLACK)

    def loss(self):
        netemctl("set", "n1", "n4", "loss=10%")
        count, share = self.count(300, 2000), 0.19
        lost = count - len(ping(1, 4, count, 0.005))
        error = 4 * (count * share * (1 - share)) ** 0.5
        return ("A link loses its share", "netemctl set n1 n4 loss=10%", "ping", "19.0 % of round trips",
                f"{100 * lost / count:.1f} % of {count}", abs(lost - count * share) <= error)

    def order(self):
        netemctl("set", "n1", "n2", "jitter=4ms")
        out_of_order = lambda: iperf(1, 2, "-u", "-b", "2M", "-l", 200, "-t", 2)["end"]["streams"][0]["udp"]["out_of_order"]
        kept = out_of_order()
        netemctl("set", "n1", "n2", "jitter=4ms", 'reorder="jitter"')
        mixed = out_of_order()
        return ("Jitter keeps the order, unless it may reorder", "netemctl set n1 n2 jitter=4ms", "iperf3 -u",
                "0 packets out of order; with `reorder = \"jitter\"`, some", f"{kept}; {mixed}", kept == 0 and mixed > 0)

    def rate(self):
        netemctl("set", "n1", "n2", "rate=20mbit")
        seconds = self.count(3, 8)
        bits = iperf(1, 2, "-t", seconds, "-O", 1)["end"]["sum_received"]["bits_per_second"] / 1e6
        return ("A link has its rate", "netemctl set n1 n2 rate=20mbit", "iperf3", "at most 20 Mbit/s, TCP",
                f"{bits:.1f} Mbit/s", 15 <= bits <= 20.2)

    def cut(self):
        netemctl("partition", "Z3")
        dump = spawn(inside("n7", "tcpdump", "-n", "-i", "db0", "--immediate-mode", "-l", "src", lab_v4(1)), stdout=-1, stderr=-1,
                     text=True)
        time.sleep(1)
        count = self.count(100, 500)
        answers = len(ping(1, 7, count, 0.01))
        dump.terminate()
        packets = len([line for line in dump.communicate(timeout=10)[0].splitlines() if " ICMP " in line])
        return ("A cut lets nothing through", "netemctl partition Z3", "tcpdump", f"0 of {count} packets at n7",
                f"{packets} (answers: {answers})", packets == answers == 0)

    def instant(self):
        pairs = [(1, 9), (2, 7), (4, 7), (9, 1), (7, 3), (8, 5)]
        seconds = 4
        flows = [spawn(inside(f"n{a}", "ping", "-n", "-D", "-i", 0.005, "-w", seconds, lab_v4(b)), stdout=-1, text=True)
                 for a, b in pairs]
        time.sleep(1.5)
        own = netemctl("partition", "Z3")["onset"]["spread_us"] / 1e3
        last = [float(re.findall(r"\[([0-9.]+)\]", flow.communicate(timeout=20)[0])[-1]) for flow in flows]
        spread = (max(last) - min(last)) * 1e3
        return ("All nodes switch together", "netemctl partition Z3", "ping -D over six pairs",
                "the last answers at the same time, to 5 ms", f"within {spread:.1f} ms (netemctl says {own:.1f} ms)", spread <= 100)

    def cost(self):
        results = json.loads((ROOT / "docs" / "benchmarks" / "results.json").read_text())
        rows = results["parts"]["packets"]["rows"]
        medians = {row["at"]: statistics.median(row["samples"]["netemctl"]) for row in rows
                   if row["work"] == "a packet to the last one"}
        few, many = medians[min(medians)], medians[max(medians)]
        return ("A packet costs the same with many destinations", "scripts/bench packets", "a sender of UDP packets",
                f"{max(medians):,} destinations as {min(medians)}", f"{many:.1f} µs, {few:.1f} µs", many <= 1.5 * few)

    def undelayed(self):
        netemctl("set", "n1", "n2", "rtt=40ms")
        flow = spawn(inside("n1", "ping", "-n", "-i", 0.003, lab_v4(2)), stdout=-1, text=True)
        for number in range(self.count(5, 20)):
            netemctl("set", "n1", "n2", f"rtt={(60, 40)[number % 2]}ms")
        flow.send_signal(2)
        times = [float(found) for found in re.findall(r"time=([0-9.]+)", flow.communicate(timeout=20)[0])]
        return ("No packet passes undelayed during changes", "netemctl set n1 n2 rtt=60ms", "ping",
                "no RTT below 40 ms", f"{min(times):.2f} ms is the least of {len(times)}", min(times) >= 39.8)


def kernel_state():
    return "\n".join(run(["tc", "-n", "n1", *words.split()]) for words in
                     ("qdisc show", "class show dev db0", "filter show dev db0", "filter show dev db0 ingress"))


def check(claims):
    """Checks all claims in one lab; the last claim is that nothing is left."""
    rows = []

    def add(row):
        rows.append(row)
        print(("ok   " if row[5] else "WRONG") + f" {row[0]}: {row[3]}; {row[2]}: {row[4]}", flush=True)

    with lab(TOPOLOGY):
        before = kernel_state()
        for name in ("delay", "jitter", "loss", "order", "rate", "cut", "instant", "cost", "undelayed"):
            plain()
            try:
                add(getattr(claims, name)())
            except (Failed, KeyError, IndexError, ValueError) as error:
                add((name, "", "", "", f"failed: {error}", False))
            finally:
                end_all()
            netemctl("heal", expect=(0, 1, 2))
        netemctl("clear")
        is_clear = kernel_state() == before
    processes = len(agents())
    folder = pathlib.Path("/run/netemctl-lab").exists()
    add(("Nothing is left", "netemctl clear; netemctl lab down", "tc, /proc",
         "n1 as before; no process, no folder",
         f"{'as before' if is_clear else 'different'}; {processes}, {int(folder)}", is_clear and not processes and not folder))
    return rows


def table(rows):
    meta = about()
    cpu = os.environ.get("FIDELITY_CPU", meta["cpu"])
    lines = ["", f"Measured on {meta['date']}, {meta['kernel']}, {cpu}, {meta['versions']['netemctl']}.", "",
             "| claim | command | witness | wanted | measured |", "|---|---|---|---|---|"]
    lines += [f"| {claim} | `{command}` | {witness} | {wanted} | {measured} |" for claim, command, witness, wanted, measured, _ in rows]
    return "\n".join([*lines, "", ""])


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    options.add_argument("--table", type=pathlib.Path)
    settings = options.parse_args()
    on_signals()
    try:
        rows = check(Claims(settings.quick))
    finally:
        end_all()
    if settings.table:
        settings.table.write_text(table(rows))
    return 0 if all(row[5] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
