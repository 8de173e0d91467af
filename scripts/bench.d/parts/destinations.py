"""One node and many destinations: every change, beside `tc -batch` with the same filters."""

import json

from host import NETEMCTL, RUN, Failed, inside, memory, one_agent, run, say, shuffled
import peers

ZONE = 33


def dummy():
    """The interface db0 of x1, from which packets vanish."""
    for words in ("link add db0 type dummy", "link set lo up", "addr add 10.64.0.1/10 dev db0",
                  "-6 addr add fd0a::1/64 dev db0 nodad", "link set db0 up"):
        run(["ip", "-n", "x1", *words.split()])


def measure(results, settings):
    sizes = [10, 100, 1000] if settings.quick else [10, 100, 1000, 10000]
    for nodes in sizes:
        say(f"   {nodes} destinations")
        rounds = settings.rounds_large if nodes >= 10000 else settings.rounds
        with one_agent(dummy) as agent:
            Destinations(results, nodes, agent).measure(rounds)


class Destinations:
    def __init__(self, results, nodes, agent):
        self.results, self.nodes, self.agent, self.group = results, nodes, agent, f"{nodes:,} destinations"
        self.env = {"NETEMCTL_INVENTORY": str(RUN / "inventory.toml")}
        (RUN / "inventory.toml").write_text(peers.inventory(nodes + 2, RUN / "agent.sock"))
        other = f'\n[[links.override]]\nbetween = ["n1", "n{nodes // 2 + 1}"]\nrtt = "151ms"\n'
        for name, text in {"all": peers.topology(nodes + 1, ZONE), "changed": peers.topology(nodes + 1, ZONE, more=other),
                           "joined": peers.topology(nodes + 2, ZONE)}.items():
            (RUN / f"{name}.toml").write_text(text)
        self.batches()

    def batches(self):
        """The same work for tc. Node numbers are filter handles."""
        every = range(2, self.nodes + 2)
        ends = {number: (peers.v4(number), peers.v6(number)) for number in range(2, self.nodes + 3)}
        to = {number: 2 if number <= ZONE else 3 for number in ends}
        middle, new = self.nodes // 2 + 1, self.nodes + 2
        apply = peers.tree(["10ms", "75ms"])
        for number in every:
            apply += peers.leads("add", number, *ends[number], to[number])
        lines = {
            "apply": apply,
            "one delay changes": peers.profile(4, "75.5ms") + peers.leads("replace", middle, *ends[middle], 4),
            "the delay changes back": peers.leads("replace", middle, *ends[middle], to[middle]) +
            ["class del dev db0 classid 1:4"],
            "one joins": peers.leads("add", new, *ends[new], to[new]),
            "one leaves": peers.leaves(new),
            "cut all others": [line for number in every for line in peers.cut(number, *ends[number])],
            "heal": peers.HEAL,
            "clear": peers.CLEAR,
        }
        self.files = {work: peers.batch(RUN / f"batch.{number}", words) for number, (work, words) in enumerate(lines.items())}

    def netemctl(self, work, *words):
        out = self.results.time(self.group, work, "netemctl", [NETEMCTL, "--json", words[0], "--only", "n1", *words[1:]],
                                env=self.env, at=self.nodes)
        if out and work in ("apply", "one delay changes", "one joins", "cut all others"):
            writes = json.loads(out).get("writes", {}).get("n1")
            if writes is not None:
                self.results.add(self.group, f"kernel writes: {work}", "netemctl", writes, unit="", at=self.nodes, better=None)
        self.resident(f"after {work}")
        return out is not None

    def resident(self, when):
        self.results.add(self.group, f"agent's memory {when}", "netemctl", memory(self.agent), unit="MB", at=self.nodes, better=None)

    def all_netemctl(self, turn):
        if turn == 0:
            self.resident("at its start")
        steps = {"apply": ["apply", RUN / "all.toml"], "re-apply": ["apply", RUN / "all.toml"],
                 "one delay changes": ["apply", RUN / "changed.toml"], "the delay changes back": ["apply", RUN / "all.toml"],
                 "one joins": ["apply", RUN / "joined.toml"], "one leaves": ["apply", RUN / "all.toml"],
                 "cut all others": ["partition", "n1"], "heal": ["heal"], "clear": ["clear"]}
        failed = None
        for work, words in steps.items():
            # After a failure, the next step would do other work than its name says.
            if failed and work != "clear":
                self.results.failed(self.group, work, "netemctl", f"not tried, because {failed} failed", at=self.nodes)
            elif not self.netemctl(work, *words):
                failed = work
        run([NETEMCTL, "clear", "--only", "n1"], env=self.env, expect=range(256))

    def all_tc(self, turn):
        for work, file in self.files.items():
            self.results.time(self.group, work, "tc -batch", ["tc", "-n", "x1", "-batch", file], at=self.nodes)
            if work == "apply":
                # Of one destination alone, as somebody types it: two filters, one process each.
                self.results.time(self.group, "a process that replaces one filter", "tc",
                                  ["tc", "-n", "x1", *peers.leads("replace", 2, peers.v4(2), peers.v6(2), 2)[0].split()], at=self.nodes)
        try:
            run(inside("x1", "tc", "qdisc", "del", "dev", "db0", "root"), expect=range(256))
        except Failed:
            pass

    def measure(self, rounds):
        for turn in range(rounds):
            for who in shuffled([self.all_netemctl, self.all_tc], turn):
                who(turn)
