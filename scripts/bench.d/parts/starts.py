"""What the start of a process costs each side in this kernel: a part of every figure that is short."""

from host import NETEMCTL, inside, run


def measure(results, settings):
    run(["ip", "netns", "add", "x1"])
    programs = {
        "`/bin/true`": ["/bin/true"],
        "`netemctl --version`": [NETEMCTL, "--version"],
        "`tc -V`": ["tc", "-V"],
        "`tc -n NAMESPACE` with one command": ["tc", "-n", "x1", "qdisc", "show", "dev", "lo"],
        "`nsenter` and `iptables -L`": inside("x1", "iptables-legacy", "-w", "-n", "-L", "INPUT"),
        "`python3 -c pass`": ["/usr/bin/python3", "-c", "pass"],
    }
    try:
        for command in programs.values():  # the first start reads the files
            run(command)
        for _ in range(2 * settings.rounds):
            for name, command in programs.items():
                results.time("process start", name, "this kernel", command)
    finally:
        run(["ip", "netns", "del", "x1"])
