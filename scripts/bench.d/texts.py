"""The words of docs/benchmarks.md."""

HEAD = """
# Benchmarks

`scripts/bench` measures netemctl beside other tools, and writes this page (the words are in `scripts/bench.d/texts.py`).
Each part alternates between the programs on one boot of one kernel, in an order that changes from round to round. A cell
has the median, in brackets the least and the most, and in bold the ratio: netemctl divided by this peer in the same run. For
times, a ratio below 1 means that netemctl is faster.

Absolute times say little, because they depend on the machine. In user-mode Linux (UML), the start of a process takes 10 to
90 ms, compared with 1 to 4 ms on the machine itself. So programs that start many processes look slow there. The first table
says what a start costs each side. A page fault is slow, too, and all processes share one CPU. netemctl's times include its own
start, and the agents' work.

## Run it again

<!-- not run: takes half an hour; the test of the command line runs its help -->

    scripts/bench                  # all parts; some packages are installed, and the peers in target/bench
    scripts/bench --quick fleet    # two rounds of one part; replaces this part's tables only
    scripts/bench --report         # writes this page again from the results

The machine should be quiet. `scripts/bench --help` lists the parts. The pure functions have criterion benchmarks: `cargo
bench --bench scale`.
"""

BEHIND = """
Each row of the tables below in which a peer does better by more than 5 %.
"""

# Columns that are references, and not other ways to the same end.
NO_PEERS = {"no filter (one class, one netem)", "the bare link", "bare kernel", "without jitter", "bare TLS (Python, OpenSSL)",
            "netemctl status", "this kernel"}

ORDER = ["netemctl", "tc -batch", "tc -batch, nodes at once", "tc, a process each", "tc", "tcconfig", "EnOSlib", "iptables",
         "u32, linear", "a class per destination, u32", "a priority per peer", "eBPF, fq (experiment)",
         "no filter (one class, one netem)", "the bare link", "plain netem", "netemctl, ± 5 ms", "plain netem, ± 5 ms",
         "without jitter", "bare TLS (Python, OpenSSL)", "netemctl status"]

PARTS = {
    "starts": ("The start of a process", """
The time of one start, in the kernel of the next tables. A loop over 9 nodes starts 9 processes; netemctl starts one.
""", []),
    "fleet": ("A fleet of 9 and 45 nodes", """
Three zones, RTTs of 20 and 150 ms, IPv4 and IPv6, all nodes in a lab on one machine. Peers work in the same namespaces:

- **tc -batch**: one `tc -n NODE -batch FILE` after another, with the filters that netemctl writes.
- **tc -batch, nodes at once**: the same, all started in the background by one shell.
- **tc, a process each**: one `tc` for each command, two rounds.
- **iptables**: as Jepsen does, one rule with all addresses at each node of a partition. It cuts incoming IPv4 only.
- **tcconfig**: `tcset` for each of eight destinations of one node, IPv4 only, two rounds.

netemctl's time includes what no peer does: it asks all nodes, checks the change on each of them, switches at one agreed time,
reads back, and confirms. The rows of phases say where its time goes.
""", [("fleet-9", "Times of each change at 9 nodes"), ("fleet-45", "Times of each change at 45 nodes")]),
    "onset": ("One instant", """
A partition of three zones into one and two. Packets run over six pairs at 200 Hz. The spread is the time between the last
packet of the first pair that is cut and of the last pair. Half of a period of 5 ms is the resolution.
""", [("onset", "Spread of a partition by the number of nodes")]),
    "destinations": ("One node, many destinations", """
One node with an agent, a dummy interface, and this number of destinations, IPv4 and IPv6. **tc -batch** writes the same
classes and filters, and does not read them back. The file for tc is made before the time begins. To cut a destination, tc
writes four filters: both families, both directions.
""", [("destinations", "Times of changes by the number of destinations")]),
    "packets": ("A packet", """
UDP packets of 64 bytes, as fast as one CPU sends them, to a dummy interface. The time includes the sender. In the first rows,
the packets go to the last destination. In the rows of busy profiles, they go to each destination in turn, and each destination
has a delay of its own, so packets wait in all profiles.

**eBPF, fq** is an experiment: a program of 22 instructions writes the departure time into each packet, and the qdisc `fq` keeps
to it. It is flat in the number of profiles. It has no loss, jitter, rate or order, and `fq` drops what departs after more
than 10 s.
""", [("packets", "Cost of a packet by the number of destinations"), ("profiles", "Cost of a packet by the number of busy profiles")]),
    "accuracy": ("Accuracy", """
The mean RTT of up to 300 echo requests in 3 s, one at a time, less the configured delay. One direction is delayed by 4 or 8 ms. The
bare link shows the kernel's own part.
""", [("accuracy", "Mean error of the RTT by the number of destinations")]),
    "tcp": ("TCP", """
One stream by iperf3, CUBIC, buffers of up to 64 MiB. Jitter is ± 5 ms, normal. netemctl keeps the packets in order; plain netem
reorders them. Figures under reordering vary widely between runs, so look at the range.
""", [("tcp", "Throughput of one TCP stream")]),
    "controller": ("The controller", """
All agents run in one process (`benches/agents.rs`), by HTTPS with certificates of `netemctl pki`, and share the machine's CPUs
with the controller. This part runs on the machine's own kernel.

- **Real agents** have a kernel in memory. Each agent has its own document, checks and computes each change, writes and reads
  back. On CPUs of their own, agents would work at the same time. Compare the times with those of `status` in the same run.
- **Agents that agree** share one document and answer at once, but a commit only at its commit time. They show the cost of
  the controller. The bare client makes as many connections (300 at most, extrapolated), with requests of the same number and
  sizes, one after another.

A silent agent accepts connections and never answers. The command leaves it out (`--allow-missing`), and waits a second for it
twice: for its addresses, and for its document.
""", [("controller", "CPU time of the controller by the number of nodes")]),
    "idle": ("An idle lab", """
What an idle lab costs. The busy CPU includes everything in the kernel.
""", []),
    "enoslib": ("EnOSlib", """
`NetemHTB` of EnOSlib over ssh, beside netemctl over ssh, with the same sshds in namespaces. EnOSlib deploys by Ansible.
""", []),
}
