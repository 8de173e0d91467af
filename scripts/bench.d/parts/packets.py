"""What a packet costs: by the number of destinations, and by the number of profiles that have packets waiting."""

import ctypes
import pathlib

from host import NETEMCTL, RUN, TOOLS, Failed, inside, libc, one_agent, run, say, shuffled
from parts.destinations import dummy
import peers

ZONE = 33
DELAYS = (5, 10)  # ms, one way, inside a zone and between zones
BPF = pathlib.Path("/run/bench-bpf")


def measure(results, settings):
    seconds = 0.5
    with one_agent(dummy):
        BPF.mkdir(exist_ok=True)
        if libc.mount(b"bpf", str(BPF).encode(), b"bpf", 0, None):
            results.note(f"no bpf file system: errno {ctypes.get_errno()}")
        try:
            for nodes in ([10, 1000] if settings.quick else [10, 100, 1000, 5000]):
                say(f"   {nodes} destinations")
                for turn in range(2 if settings.quick else settings.rounds):
                    destinations(results, nodes, seconds, turn)
            for busy in ([8, 250] if settings.quick else [1, 8, 64, 250]):
                say(f"   {busy} busy profiles")
                for turn in range(2 if settings.quick else settings.rounds):
                    profiles(results, busy, seconds, turn)
        finally:
            libc.umount2(str(BPF).encode(), 2)


def blast(address, seconds, addresses=1):
    return float(run(inside("x1", TOOLS, "blast", address, 9, seconds, addresses)))


def tc(lines):
    run(["tc", "-n", "x1", "-batch", peers.batch(RUN / "batch", lines)])


def clear_tc():
    for line in peers.CLEAR:
        run(["tc", "-n", "x1", *line.split()], expect=range(256))


def edt(count, delays):
    """eBPF that writes departure times, and the qdisc fq that keeps to them: no class, no filter, no netem."""
    path = BPF / "delay"
    path.unlink(missing_ok=True)
    run([TOOLS, "edt", path, peers.v4(2), count, *delays])
    tc(["qdisc add dev db0 root fq limit 1000000 flow_limit 1000000", "qdisc add dev db0 clsact",
        f"filter add dev db0 egress bpf direct-action object-pinned {path}"])


def netemctl(text, nodes):
    (RUN / "inventory.toml").write_text(peers.inventory(nodes, RUN / "agent.sock"))
    (RUN / "packets.toml").write_text(text)
    run([NETEMCTL, "apply", "--only", "n1", RUN / "packets.toml"], env={"NETEMCTL_INVENTORY": str(RUN / "inventory.toml")})


def clear_netemctl():
    run([NETEMCTL, "clear", "--only", "n1"], env={"NETEMCTL_INVENTORY": str(RUN / "inventory.toml")})


def destinations(results, nodes, seconds, turn):
    """Packets to the last destination."""
    every = range(2, nodes + 2)
    addresses = [peers.v4(number) for number in every]
    classes = [2 if number <= ZONE else 3 for number in every]
    tree = peers.tree([f"{delay}ms" for delay in DELAYS])
    topology = peers.topology(nodes + 1, ZONE, intra=2 * DELAYS[0], inter=2 * DELAYS[1])
    programs = {
        "netemctl": (lambda: netemctl(topology, nodes + 1), clear_netemctl),
        "u32, linear": (lambda: tc(tree + peers.linear(addresses, classes)), clear_tc),
        "no filter (one class, one netem)": (lambda: tc(tree_to_default()), clear_tc),
        "eBPF, fq (experiment)": (lambda: edt(nodes, DELAYS), clear_tc),
    }
    # A packet costs milliseconds there, so two rounds say enough.
    if nodes < 5000 or turn < 2:
        programs["a priority per peer"] = (lambda: tc(tree + peers.priority_each(addresses, classes)), clear_tc)
    each(results, f"{nodes:,} destinations", "a packet to the last one", programs, turn, nodes,
         lambda: blast(addresses[-1], seconds))


def tree_to_default():
    """All packets by the default class to one netem: what the delay costs without a choice."""
    return ["qdisc add dev db0 root handle 1: htb default 1", f"class add dev db0 parent 1: classid 1:1 htb {peers.NO_LIMIT}",
            f"qdisc add dev db0 parent 1:1 handle 2: netem delay {DELAYS[1]}ms limit 100000"]


def profiles(results, busy, seconds, turn):
    """Packets to each destination in turn, each with its own delay, so that packets wait in all profiles."""
    every = range(2, busy + 2)
    delays = [10 + number * 0.04 for number in range(busy)]
    overrides = "".join(f'\n[[links.override]]\nbetween = ["n1", "n{number}"]\nrtt = "{2 * delay:.2f}ms"\n'
                        for number, delay in zip(every, delays))
    topology = peers.topology(busy + 1, busy + 1, more=overrides)
    addresses = [peers.v4(number) for number in every]
    programs = {
        "netemctl": (lambda: netemctl(topology, busy + 1), clear_netemctl),
        "a class per destination, u32": (lambda: tc(peers.class_per_destination(addresses, [f"{delay:.2f}ms" for delay in delays])), clear_tc),
        "no filter (one class, one netem)": (lambda: tc(tree_to_default()), clear_tc),
        "eBPF, fq (experiment)": (lambda: edt(busy, delays), clear_tc),
    }
    each(results, f"{busy:,} busy profiles", "a packet", programs, turn, busy, lambda: blast(addresses[0], seconds, busy))


def each(results, group, work, programs, turn, at, measured):
    for name in shuffled(programs, turn):
        begin, end = programs[name]
        try:
            begin()
            results.add(group, work, name, measured(), unit="µs", at=at)
        except Failed as error:
            results.failed(group, work, name, error, unit="µs", at=at)
        finally:
            try:
                end()
            except Failed as error:
                results.note(f"{group}, {name}: {error}")
