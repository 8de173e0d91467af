"""One TCP stream by iperf3: at 75 ms, and under jitter. Each run counts: the middle half of the runs is said, not only the median."""

import json
import time

from host import NETEMCTL, RUN, inside, lab, run, say, shuffled, spawn
import peers

SECONDS = 6
STEADY_FROM = 4


def measure(results, settings):
    runs = 2 if settings.quick else 7
    RUN.mkdir(exist_ok=True)
    topology = RUN / "two.toml"
    topology.write_text(peers.topology(2, 2, intra=0))
    with lab(topology):
        servers = []
        for node in (1, 2):
            run(["ip", "netns", "exec", f"n{node}", "sh", "-c",
                 "echo '4096 131072 67108864' >/proc/sys/net/ipv4/tcp_rmem; echo '4096 65536 67108864' >/proc/sys/net/ipv4/tcp_wmem"])
        servers.append(spawn(inside("n2", "iperf3", "-s", "-B", peers.lab_v4(2)), stdout=open("/dev/null", "w")))
        time.sleep(1)
        groups = {
            "37.5 ms each way": {"netemctl": netemctl("37.5ms", "", ("n1", "n2")),
                                 "plain netem": netem("37.5ms", ("n1", "n2"))},
            "20 ms one way": jittered(("n1",)),
            "20 ms each way": jittered(("n1", "n2")),
        }
        for turn in range(runs):
            for group, links in groups.items():
                if "netemctl" in links and turn >= 3:  # without jitter, the runs agree
                    continue
                say(f"   run {turn + 1} of {runs}: {group}")
                for name in shuffled(links, turn):
                    begin, end = links[name]
                    begin()
                    try:
                        stream(results, group, name)
                    finally:
                        end()


def jittered(nodes):
    return {
        "without jitter": netem("20ms", nodes),
        "netemctl, ± 5 ms": netemctl("20ms", ", jitter = '5ms', distribution = 'normal'", nodes),
        "plain netem, ± 5 ms": netem("20ms 5ms distribution normal", nodes),
    }


def netemctl(delay, more, nodes):
    def begin():
        rules = "".join(f"[[links.override]]\nfrom = '{node}'\nto = 'n[1-2]'\n" +
                        f"delay = '{delay}'\n" + more.lstrip(", ").replace(", ", "\n") + "\n" for node in nodes)
        path = RUN / "tcp.toml"
        path.write_text(f"name = 'tcp'\nnodes = 'n[1-2]'\n[links]\ndefault = {{ rtt = '0ms' }}\n{rules}")
        run([NETEMCTL, "apply", path])

    return begin, lambda: run([NETEMCTL, "clear"])


def netem(options, nodes):
    def begin():
        for node in nodes:
            run(["tc", "-n", node, "qdisc", "add", "dev", "db0", "root", "netem", "delay", *options.split(), "limit", "100000"])

    def end():
        for node in nodes:
            run(["tc", "-n", node, "qdisc", "del", "dev", "db0", "root"])

    return begin, end


def stream(results, group, name):
    answer = json.loads(run(inside("n1", "iperf3", "-J", "-i", "1", "-t", SECONDS, "-c", peers.lab_v4(2)), limit=60))
    if len(answer["intervals"]) < SECONDS:
        # iperf3 can end early with exit code 0.
        results.note(f"{group}, {name}: iperf3 ended early: {answer.get('error', 'it does not say why')}")
        return
    # What arrives is what the sender sends once its buffers are full; the first second also has the buffers.
    rates = [interval["sum"]["bits_per_second"] / 1e6 for interval in answer["intervals"]]
    steady = rates[STEADY_FROM:SECONDS]
    results.add(group, "first second", name, rates[0], unit="Mbit/s", better="higher")
    results.add(group, "first three seconds", name, sum(rates[:3]) / 3, unit="Mbit/s", better="higher")
    results.add(group, f"steady (seconds {STEADY_FROM + 1} and {SECONDS})", name, sum(steady) / len(steady), unit="Mbit/s", better="higher")
