"""Topologies for netemctl, and the same for its peers: commands for `tc -batch`."""

import pathlib

INTRA, INTER = 20, 150  # RTTs in ms


def v4(number):
    """The address of the node nNUMBER of `inventory`."""
    return f"10.{64 + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"


def v6(number):
    return f"fd0a::{number >> 12:x}:{number & 0xfff:x}"


def lab_v4(number):
    """The address of nNUMBER in a lab."""
    return f"10.78.{number >> 8}.{number & 255}"


def lab_v6(number):
    return f"fd78::{number:x}"


def topology(nodes, zone, intra=INTRA, inter=INTER, more=""):
    """Nodes n1, n2 and so on in zones of `zone` nodes."""
    zones = []
    for first in range(1, nodes + 1, zone):
        last = min(nodes, first + zone - 1)
        zones.append(f'Z{len(zones) + 1} = "n[{first}-{last}]"' if last > first else f'Z{len(zones) + 1} = "n{first}"')
    inter_zone = f'inter-zone = {{ rtt = "{inter}ms" }}\n' if len(zones) > 1 else ""
    return (f'name = "bench-{nodes}"\n\n[zones]\n' + "\n".join(zones) +
            f'\n\n[links]\nintra-zone = {{ rtt = "{intra}ms" }}\n{inter_zone}{more}')


def inventory(nodes, socket):
    """The node n1 is an agent behind `socket`; the agents of the others do not exist."""
    lines = ["[nodes]"]
    for number in range(1, nodes + 1):
        path = socket if number == 1 else f"/nowhere/n{number}.sock"
        lines.append(f'n{number} = {{ transport = "unix", socket = "{path}", interface = "db0", '
                     f'addresses = ["{v4(number)}", "{v6(number)}"] }}')
    return "\n".join(lines) + "\n"


def batch(path, lines):
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    return str(path)


# ---- The tree of netemctl, written by hand: classes 2 and up, one hash of destinations for each family ----

CLEAR = ["qdisc del dev db0 root", "qdisc del dev db0 clsact"]
NO_LIMIT = "rate 100gbit burst 10mb cburst 10mb quantum 60000"


def tree(delays):
    """The root, and one class with one netem for each delay."""
    lines = ["qdisc add dev db0 root handle 1: htb default 1", "qdisc add dev db0 clsact",
             f"class add dev db0 parent 1: classid 1:1 htb {NO_LIMIT}"]
    for number, delay in enumerate(delays, 2):
        lines += profile(number, delay)
    return lines


def profile(number, delay):
    return [f"class add dev db0 parent 1: classid 1:{number:x} htb {NO_LIMIT}",
            f"qdisc add dev db0 parent 1:{number:x} handle {number:x}: netem delay {delay} limit 100000"]


def leads(verb, number, a4, a6, to):
    """The destination `number`, with its addresses of both families, to the class `to`."""
    return [f"filter {verb} dev db0 parent 1: protocol ip pref 10 handle {number} flower skip_hw dst_ip {a4} classid 1:{to:x}",
            f"filter {verb} dev db0 parent 1: protocol ipv6 pref 11 handle {number} flower skip_hw dst_ip {a6} classid 1:{to:x}"]


def leaves(number):
    return [f"filter del dev db0 parent 1: protocol ip pref 10 handle {number} flower",
            f"filter del dev db0 parent 1: protocol ipv6 pref 11 handle {number} flower"]


def cut(number, a4, a6):
    """Drops what goes to a destination and what comes from it."""
    return [f"filter add dev db0 parent 1: protocol ip pref 2 handle {number} flower skip_hw dst_ip {a4} action drop",
            f"filter add dev db0 parent 1: protocol ipv6 pref 3 handle {number} flower skip_hw dst_ip {a6} action drop",
            f"filter add dev db0 ingress protocol ip pref 2 handle {number} flower skip_hw src_ip {a4} action drop",
            f"filter add dev db0 ingress protocol ipv6 pref 3 handle {number} flower skip_hw src_ip {a6} action drop"]


HEAL = [f"filter del dev db0 {hook} protocol {protocol}" for hook in ("parent 1:", "ingress")
        for protocol in ("ip pref 2", "ipv6 pref 3")]


# ---- The shapes of other tools ----


def class_per_destination(addresses, delays):
    """As EnOSlib and tcconfig do: a class, a netem and a u32 filter for each destination, all at one priority."""
    lines = ["qdisc add dev db0 root handle 1: htb"]
    for number, (address, delay) in enumerate(zip(addresses, delays), 10):
        lines += [f"class add dev db0 parent 1: classid 1:{number:x} htb rate 10gbit",
                  f"qdisc add dev db0 parent 1:{number:x} handle {number:x}: netem delay {delay}",
                  f"filter add dev db0 parent 1: protocol ip u32 match ip dst {address}/32 flowid 1:{number:x}"]
    return lines


def linear(addresses, classes):
    """u32 filters in one list, which the kernel walks."""
    return [f"filter add dev db0 parent 1: protocol ip pref 10 u32 match ip dst {address}/32 flowid 1:{to:x}"
            for address, to in zip(addresses, classes)]


def priority_each(addresses, classes):
    """A priority for each destination, as nlink does: the kernel asks one classifier after another."""
    return [f"filter add dev db0 parent 1: protocol ip pref {number} flower skip_hw dst_ip {address} classid 1:{to:x}"
            for number, (address, to) in enumerate(zip(addresses, classes), 2)]
