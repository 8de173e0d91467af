"""How busy an idle lab keeps the machine: noise in what its users measure."""

import pathlib
import time

from host import NETEMCTL, RUN, lab, run, say
import peers


def measure(results, settings):
    RUN.mkdir(exist_ok=True)
    seconds = 3 if settings.quick else 10
    for _ in range(2 if settings.quick else settings.rounds_large):
        watch(results, "no lab", "nothing runs", [], seconds)
    for nodes in ([9] if settings.quick else [9, 45]):
        say(f"   {nodes} nodes")
        topology = RUN / "idle.toml"
        topology.write_text(peers.topology(nodes, nodes // 3))
        with lab(topology) as pids:
            for _ in range(2):
                for state, commands in {"nothing in force": [], "a topology in force": [["apply", topology]],
                                        "and a partition": [["partition", "Z3"]]}.items():
                    for words in commands:
                        run([NETEMCTL, *words])
                    # Idle threads of an agent end after ten seconds. With them, their counts would vanish.
                    time.sleep(12)
                    watch(results, f"a lab of {nodes}", state, pids.values(), seconds)
                run([NETEMCTL, "clear"])
                run([NETEMCTL, "heal"], expect=range(256))


def watch(results, group, state, pids, seconds):
    before, busy_before, begin = counts(pids), busy(), time.monotonic()
    time.sleep(seconds)
    after, busy_after, lasted = counts(pids), busy(), time.monotonic() - begin
    if pids:
        each = len(list(pids)) * lasted
        results.add(group, f"{state}: context switches of an agent a second", "netemctl", (after[0] - before[0]) / each, unit="1/s")
        results.add(group, f"{state}: CPU time of an agent a second", "netemctl", (after[1] - before[1]) / each / 1e3, unit="ms/s")
    results.add(group, f"{state}: the CPU is busy", "netemctl" if pids else "bare kernel", (busy_after - busy_before) / lasted, unit="%")


def counts(pids):
    """Context switches, and CPU time in µs, of processes with all their threads."""
    switches = cpu = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    switches += int(line.split()[1])
            schedstat = task / "schedstat"
            if schedstat.exists():
                cpu += int(schedstat.read_text().split()[0]) / 1e3
            else:
                fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
                cpu += (int(fields[11]) + int(fields[12])) * 1e4
    return switches, cpu


def busy():
    """The busy time of all CPUs since boot, in hundredths of a second."""
    user, nice, system, _, _, irq, softirq = map(int, pathlib.Path("/proc/stat").read_text().split()[1:8])
    return user + nice + system + irq + softirq
