"""One instant for all: when the last packet passes each of six pairs after a partition began, and how far these times are apart."""

import json
import time

from host import NETEMCTL, RUN, TOOLS, Failed, end_all, inside, lab, run, say, shuffled, spawn
import peers

HZ = 200


def measure(results, settings):
    sizes = {9: 2} if settings.quick else {9: settings.rounds, 45: settings.rounds_large, 100: 2}
    for nodes, rounds in sizes.items():
        say(f"   {nodes} nodes")
        onset(results, nodes, rounds)


def onset(results, nodes, rounds):
    RUN.mkdir(exist_ok=True)
    zone = nodes // 3
    topology = RUN / "onset.toml"
    # Nodes that do not fill three zones are in the third one.
    third = 2 * zone + 1
    text = peers.topology(3 * zone, zone)
    topology.write_text(text.replace(f'Z3 = "n[{third}-{3 * zone}]"', f'Z3 = "n[{third}-{nodes}]"'))
    far, near = range(third, nodes + 1), range(1, third)

    def across(node):
        return near if node in far else far

    folder = RUN / "cuts"
    folder.mkdir(exist_ok=True)
    cuts = {node: peers.batch(folder / str(node), [
        line for number in across(node) for line in peers.cut(number, peers.lab_v4(number), peers.lab_v6(number))])
        for node in range(1, nodes + 1)}
    heal = peers.batch(folder / "heal", peers.HEAL)
    base = peers.batch(folder / "tree", peers.tree(["10ms", "75ms"]))
    clear = peers.batch(folder / "clear", peers.CLEAR)
    every = range(1, nodes + 1)

    def tc(file_of):
        for node in every:
            run(["tc", "-n", f"n{node}", "-batch", file_of(node)])

    def tables(*words):
        for node in every:
            sources = ["-s", ",".join(map(peers.lab_v4, across(node))), "-j", "DROP"] if words[0] == "-A" else []
            run(inside(f"n{node}", "iptables-legacy", "-w", *words, *sources))

    def netemctl():
        return run([NETEMCTL, "--json", "partition", "Z3"])

    pairs = [(1, nodes), (2, third), (zone + 1, third + 1), (nodes, 1), (third, 3), (third + 1, zone + 2)]
    group = f"{nodes} nodes"
    with lab(topology):
        for turn in range(rounds):
            for name in shuffled(["netemctl", "tc -batch", "iptables"], turn):
                if name == "netemctl":
                    try:
                        run([NETEMCTL, "apply", topology])
                        answer = watch(results, group, nodes, pairs, name, netemctl)
                        if said := json.loads(answer).get("onset"):
                            results.add(group, "spread that netemctl itself reports", name, said["spread_us"] / 1e3, at=nodes, better=None)
                    except Failed as error:
                        end_all()  # the flows
                        results.failed(group, "spread over the pairs", name, error, at=nodes)
                    # Its tree would be in the way of the peers, so this must succeed.
                    run([NETEMCTL, "clear", "--wait", "1m"], limit=120)
                elif name == "tc -batch":
                    tc(lambda node: base)
                    watch(results, group, nodes, pairs, name, lambda: tc(lambda node: cuts[node]))
                    tc(lambda node: heal)
                    tc(lambda node: clear)
                else:
                    watch(results, group, nodes, pairs, name, lambda: tables("-A", "INPUT"))
                    tables("-F", "INPUT")


def watch(results, group, nodes, pairs, who, cut):
    """Sends packets over each pair while `cut` runs."""
    # Long enough for a loop over all nodes on a slow machine.
    lasts = 6 + nodes * 0.5
    receivers = []
    flows = []
    for number, (source, target) in enumerate(pairs):
        file = open(RUN / f"last.{number}", "w+")
        receivers.append((file, spawn(inside(f"n{target}", TOOLS, "last", 7000 + number, lasts), stdout=file)))
        flows.append(spawn(inside(f"n{source}", TOOLS, "send", peers.lab_v4(target), 7000 + number, lasts, HZ)))
    time.sleep(1.5)
    begin = time.time()
    answer = cut()
    end = time.time()
    time.sleep(0.5 if who == "netemctl" else 0.2)
    stopped = time.time()
    for flow in flows:  # ends the senders; the receivers print what they have at SIGTERM
        flow.terminate()
    last = []
    for file, process in receivers:
        process.terminate()
        process.wait()
        file.seek(0)
        text = file.read().strip()
        file.close()
        if text:
            last.append(float(text))
    for flow in flows:
        flow.wait()
    if len(last) < len(pairs) or max(last) > stopped - 0.1:
        results.failed(group, "spread over the pairs", who, f"{len(last)} of {len(pairs)} pairs were seen to end", at=nodes)
        return answer
    results.add(group, "spread over the pairs", who, (max(last) - min(last)) * 1e3, at=nodes)
    results.add(group, "from the command's start to the last packet", who, (max(last) - begin) * 1e3, at=nodes)
    results.add(group, "the command", who, (end - begin) * 1e3, at=nodes)
    return answer
