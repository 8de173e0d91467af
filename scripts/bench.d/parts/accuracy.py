"""The mean error of the RTT, by the number of destinations. An error has two parts: the kernel's own, and the search of the filter."""

from host import NETEMCTL, RUN, TOOLS, Failed, inside, libc, one_agent, run, say, shuffled
from parts import packets
import peers

DELAYS = (4, 8)  # ms: the other direction has none
ZONE = packets.ZONE
PROBED = 16


def measure(results, settings):
    sizes = [10, 1000] if settings.quick else [10, 1000, 10000, 60000] if settings.full else [10, 1000, 10000]
    packets.BPF.mkdir(exist_ok=True)
    libc.mount(b"bpf", str(packets.BPF).encode(), b"bpf", 0, None)
    run(["ip", "netns", "add", "x2"])
    try:
        for nodes in sizes:
            say(f"   {nodes} destinations")
            probed = sorted({2 + (nodes - 1) * step // (PROBED - 1) for step in range(PROBED)})
            with one_agent(lambda: pair(probed)):
                for turn in range(settings.rounds_large):
                    destinations(results, nodes, probed, 1 if settings.quick else 3, turn)
    finally:
        run(["ip", "netns", "del", "x2"], expect=range(256))
        libc.umount2(str(packets.BPF).encode(), 2)


def pair(probed):
    """db0 of x1, and at its other end x2, which has the addresses that are probed."""
    run(["ip", "-n", "x2", "link", "del", "db0"], expect=range(256))
    lines = ["link add db0 netns x1 type veth peer name db0 netns x2"]
    run(["ip", *lines[0].split()])
    here = ["link set lo up", "addr add 10.64.0.1/10 dev db0", "addr add fd0a::1/64 dev db0 nodad", "link set db0 up"]
    there = ["addr add 10.127.255.254/10 dev db0", "link set db0 up", *(f"addr add {peers.v4(number)}/32 dev db0" for number in probed)]
    for name, commands in (("x1", here), ("x2", there)):
        run(["ip", "-n", name, "-batch", peers.batch(RUN / f"ip.{name}", commands)])


def destinations(results, nodes, probed, seconds, turn):
    every = range(2, nodes + 2)
    addresses = [peers.v4(number) for number in every]
    classes = [2 if number <= ZONE else 3 for number in every]
    tree = peers.tree([f"{delay}ms" for delay in DELAYS])
    topology = peers.topology(nodes + 1, ZONE, intra=2 * DELAYS[0], inter=2 * DELAYS[1])
    delays = [DELAYS[number > ZONE] for number in every]

    def edt():
        # The program takes its delays in turn, so each destination has one of its own.
        packets.edt(nodes, [DELAYS[1]])

    programs = {
        "netemctl": (lambda: packets.netemctl(topology, nodes + 1), packets.clear_netemctl),
        "u32, linear": (lambda: packets.tc(tree + peers.linear(addresses, classes)), packets.clear_tc),
        "a class per destination, u32": (lambda: packets.tc(peers.class_per_destination(
            addresses, [f"{delay}ms" for delay in delays])), packets.clear_tc),
        "eBPF, fq (experiment)": (edt, packets.clear_tc),
        "the bare link": (lambda: None, lambda: None),
    }
    if nodes > 10000:
        del programs["u32, linear"], programs["a class per destination, u32"]
    for name in shuffled(programs, turn):
        begin, end = programs[name]
        try:
            begin()
            wanted = {index: 0 if "bare" in name else DELAYS[1] if "eBPF" in name else DELAYS[number > ZONE]
                      for index, number in enumerate(probed)}
            error = mean_error(probed, wanted, seconds)
            results.add(f"{nodes:,} destinations", "mean error of the RTT", name, error, unit="ms", at=nodes)
        except (Failed, ValueError) as error:
            results.failed(f"{nodes:,} destinations", "mean error of the RTT", name, error, at=nodes)
        finally:
            end()


def mean_error(probed, wanted, seconds):
    targets = [peers.v4(number) for number in probed]
    run(inside("x1", TOOLS, "echo", 0.4, 100, *targets))  # resolves the neighbours
    lines = [line.split() for line in run(inside("x1", TOOLS, "echo", seconds, 100, *targets)).splitlines()]
    errors = [float(rtt) - wanted[int(index)] for index, rtt in lines]
    if len(errors) < 20:
        raise ValueError(f"only {len(errors)} answers")
    return sum(errors) / len(errors)
