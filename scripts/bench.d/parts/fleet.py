"""The verbs of a fleet: one netemctl command, beside loops over the nodes, in the same namespaces."""

import json
import time

from host import NETEMCTL, RUN, WORK, Failed, inside, lab, run, say, shuffled
import peers

WORKS = ["apply", "re-apply", "one delay changes", "partition", "heal", "clear"]


def measure(results, settings):
    sizes = {9: settings.rounds} if settings.quick else {9: settings.rounds, 45: settings.rounds_large}
    for nodes, rounds in sizes.items():
        say(f"   {nodes} nodes")
        fleet(results, settings, nodes, rounds)


def fleet(results, settings, nodes, rounds):
    RUN.mkdir(exist_ok=True)
    zone = nodes // 3
    before, after = RUN / "before.toml", RUN / "after.toml"
    before.write_text(peers.topology(nodes, zone))
    after.write_text(peers.topology(nodes, zone, inter=peers.INTER + 1))
    batches = {node: node_batches(node, nodes, zone) for node in range(1, nodes + 1)}
    group = f"{nodes} nodes"
    with lab(before):
        programs = {"netemctl": lambda turn: netemctl(results, group, before, after),
                    "tc -batch": lambda turn: loop(results, group, "tc -batch", batches, tc_batch),
                    # On one CPU, this takes as long as the loop; one round says so.
                    "tc -batch, nodes at once": lambda turn: (nodes < 45 or turn < 1) and at_once(results, group, batches),
                    "iptables": lambda turn: iptables(results, group, nodes, zone)}
        if nodes == 9 and not settings.quick:
            programs["tc, a process each"] = lambda turn: turn < 2 and loop(
                results, group, "tc, a process each", batches, tc_each)
        for turn in range(rounds):
            for name in shuffled(programs, turn):
                programs[name](turn)
    if nodes == 9:
        one_node(results, settings)


def netemctl(results, group, before, after):
    def verb(work, *words):
        begin = time.time()
        out = results.time(group, work, "netemctl", [NETEMCTL, "--json", *words])
        return out, begin, time.time()

    phases(results, group, "apply", *verb("apply", "apply", before))
    verb("re-apply", "apply", before)
    verb("one delay changes", "apply", after)
    phases(results, group, "partition", *verb("partition", "partition", "Z3"))
    verb("heal", "heal")
    results.time(group, "status", "netemctl", [NETEMCTL, "--json", "status"])
    verb("clear", "clear")


def phases(results, group, work, out, begin, end):
    """Where the time of a change goes, by the wall-clock times in its answer."""
    onset = out and json.loads(out).get("onset")
    if not onset:
        return
    last = max(node["last_us"] for node in onset["nodes"].values()) / 1e3
    first = min(node["first_us"] for node in onset["nodes"].values()) / 1e3
    for phase, value in {
        "start, ask, prepare on all nodes, lead": (onset["agreed"] - begin) * 1e3,
        "from the agreed time to the first node's first write": first,
        "from the first write to the last node's last write": last - first,
        "read back, confirm, answer": (end - onset["agreed"]) * 1e3 - last,
    }.items():
        results.add(f"{group}: phases of {work}", phase, "netemctl", value, better=None)


def node_batches(node, nodes, zone):
    """The files for `tc -batch` of one node, by what is done."""
    def place(number):
        return (number - 1) // zone

    others = [number for number in range(1, nodes + 1) if number != node]
    far = [number for number in others if place(number) != place(node)]
    across = [number for number in others if (place(number) == 2) != (place(node) == 2)]
    apply = peers.tree([f"{peers.INTRA / 2}ms", f"{peers.INTER / 2}ms"])
    for number in others:
        apply += peers.leads("add", number, peers.lab_v4(number), peers.lab_v6(number), 3 if number in far else 2)
    lines = {
        "apply": apply,
        "one delay changes": [f"qdisc change dev db0 parent 1:3 handle 3: netem delay {(peers.INTER + 1) / 2}ms limit 100000"],
        "partition": [line for number in across for line in peers.cut(number, peers.lab_v4(number), peers.lab_v6(number))],
        "heal": peers.HEAL,
        "clear": peers.CLEAR,
    }
    folder = RUN / "batches"
    folder.mkdir(exist_ok=True)
    return {work: (peers.batch(folder / f"{work.replace(' ', '-')}.{nodes}.{node}", words), words) for work, words in lines.items()}


def tc_batch(node, file, lines):
    return [["tc", "-n", f"n{node}", "-batch", file]]


def tc_each(node, file, lines):
    return [["tc", "-n", f"n{node}", *line.split()] for line in lines]


def loop(results, group, who, batches, commands):
    for work in ("apply", "one delay changes", "partition", "heal", "clear"):
        results.time(group, work, who, [each for node, files in batches.items() for each in commands(node, *files[work])])


def at_once(results, group, batches):
    """A shell that starts one `tc -batch` for each node in the background, and waits."""
    for work in ("apply", "one delay changes", "partition", "heal", "clear"):
        script = " & ".join(f"tc -n n{node} -batch '{files[work][0]}'" for node, files in batches.items())
        results.time(group, work, "tc -batch, nodes at once", ["sh", "-c", f"{script} & wait"])


def iptables(results, group, nodes, zone):
    """As Jepsen does: one rule of the peers' addresses for each node."""
    def across(node):
        return ",".join(peers.lab_v4(number) for number in range(1, nodes + 1)
                        if ((number - 1) // zone == 2) != ((node - 1) // zone == 2))

    every = range(1, nodes + 1)
    results.time(group, "partition", "iptables",
                 [inside(f"n{node}", "iptables-legacy", "-w", "-A", "INPUT", "-s", across(node), "-j", "DROP") for node in every])
    results.time(group, "heal", "iptables", [inside(f"n{node}", "iptables-legacy", "-w", "-F", "INPUT") for node in every])


def one_node(results, settings):
    """One node with eight destinations: also tcconfig, whose every rule is a start of Python."""
    tcset = WORK / "peers" / "bin" / "tcset"
    group = "one of 9 nodes"
    zone = 3
    topology = RUN / "before.toml"
    topology.write_text(peers.topology(9, zone))
    file, _ = node_batches(1, 9, zone)["apply"]
    with lab(topology):
        for turn in range(settings.rounds):
            results.time(group, "apply", "netemctl", [NETEMCTL, "apply", "--only", "n1", topology])
            results.time(group, "clear", "netemctl", [NETEMCTL, "clear", "--only", "n1"])
            results.time(group, "apply", "tc -batch", ["tc", "-n", "n1", "-batch", file])
            results.time(group, "clear", "tc -batch", [["tc", "-n", "n1", *line.split()] for line in peers.CLEAR])
            if settings.quick or not tcset.exists() or turn >= 2:
                continue
            rules = []
            for number in range(2, 10):
                delay = peers.INTRA if number <= zone else peers.INTER
                add = [] if number == 2 else ["--add"]
                rules.append(inside("n1", tcset, "db0", "--delay", f"{delay // 2}ms", "--network", peers.lab_v4(number), *add))
            results.time(group, "apply", "tcconfig", rules)
            results.time(group, "clear", "tcconfig", inside("n1", WORK / "peers" / "bin" / "tcdel", "db0", "--all"))
            try:
                run(inside("n1", "tc", "qdisc", "del", "dev", "db0", "root"), expect=range(256))
            except Failed:
                pass
