"""The controller with agents in one process: its times, CPU time, memory and bytes for each node.

The agents are benches/agents.rs: real agents with a kernel in memory, and agents that agree to everything at once.
"""

import json
import os
import pathlib
import resource
import socket
import ssl
import subprocess
import tempfile
import time

from host import NETEMCTL, WORK, say, spawn, run
import peers

# The largest fleet of real agents. Each of them has its own copy of the document and does all the work of an agent.
REAL = 1000

# The address of an agent that never answers.
SILENT = "127.65.0.1"

# The most connections that the bare client makes; its cost is extrapolated to as many as netemctl has made.
BARE = 300


def measure(results, settings):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    sizes = [100] if settings.quick else [100, 1000, 10000] if settings.full else [100, 1000]
    for nodes in sizes:
        if limit < 3 * nodes:
            results.note(f"{nodes:,} agents need {3 * nodes:,} open files; the limit is {limit:,} (ulimit -n)")
            continue
        say(f"   {nodes} agents")
        with tempfile.TemporaryDirectory(prefix="netemctl-bench.") as folder:
            controller = Controller(results, nodes, pathlib.Path(folder))
            rounds = 2 if nodes >= 1000 else settings.rounds
            if nodes <= REAL:
                controller.measure("real agents", rounds)
            controller.measure("agents that agree", rounds)


class Controller:
    def __init__(self, results, nodes, folder):
        self.results, self.nodes = results, nodes
        self.pki = folder / "pki"
        run([NETEMCTL, "pki", "init", "--dir", self.pki])
        run([NETEMCTL, "pki", "issue", f"n[1-{nodes}]", "--controller", "--dir", self.pki])
        self.port = free_port()
        self.inventory = folder / "inventory.toml"
        lines = [f'n{number} = {{ host = "{address(number)}", port = {self.port}, interface = "db0", '
                 f'addresses = ["{peers.v4(number)}", "{peers.v6(number)}"] }}' for number in range(1, nodes + 1)]
        self.inventory.write_text("[nodes]\n" + "\n".join(lines) + "".join(
            f'\n{word}' for word in ["[tls]", *(f'{key} = "{self.pki}/controller/{key}.pem"' for key in ("ca", "cert", "key"))]) + "\n")
        self.before, self.after = folder / "before.toml", folder / "after.toml"
        self.before.write_text(peers.topology(nodes, 33))
        self.after.write_text(peers.topology(nodes, 33, inter=peers.INTER + 1))

    def measure(self, kind, rounds):
        self.group, self.are_real = f"{self.nodes:,} {kind}", kind == "real agents"
        words = [WORK / "agents", self.nodes, self.pki, self.port, *([] if self.are_real else ["--agree"])]
        self.agents = spawn(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.agents.stdout.readline().strip() != "READY":
            raise RuntimeError("the agents do not start")
        try:
            for _ in range(rounds):
                self.command("status", "status")
                self.command("apply", "apply", self.before)
                self.command("re-apply", "apply", self.before)
                self.command("one delay changes", "apply", self.after)
                self.command("partition", "partition", "Z3")
                if self.are_real:
                    self.command_with_a_silent_agent()
                self.command("clear", "clear")
        finally:
            self.agents.stdin.close()
            self.agents.wait()
            self.agents.stdout.close()

    def command_with_a_silent_agent(self):
        """The last agent accepts connections and never answers."""
        last = f'"{address(self.nodes)}"'
        inventory = self.inventory.with_name("silent.toml")
        inventory.write_text(self.inventory.read_text().replace(last, f'"{SILENT}"'))
        with socket.create_server((SILENT, self.port)):
            self.command("partition beside a silent agent", "partition", "Z2", "--allow-missing", inventory=inventory)

    def command(self, work, *words, inventory=None):
        begin = time.monotonic()
        environment = {**os.environ, "NETEMCTL_INVENTORY": str(inventory or self.inventory)}
        errors = tempfile.TemporaryFile("w+")
        process = subprocess.Popen([NETEMCTL, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=errors, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - begin
        seen = self.seen()
        if code and not (work == "status" and code in (4, 6)):
            errors.seek(0)
            self.results.failed(self.group, f"{work}: CPU time a node", "netemctl", f"exit code {code}: {errors.read()[-300:]}", unit="ms", at=self.nodes)
            return
        cpu = used.ru_utime + used.ru_stime
        add = lambda what, who, value, unit, better="lower": self.results.add(
            self.group, f"{work}: {what}", who, value, unit=unit, at=self.nodes, better=better)
        if work == "status":
            self.status_took = took
        add("time", "netemctl", took * 1e3, "ms")
        add("CPU time a node", "netemctl", cpu * 1e3 / self.nodes, "ms")
        add("memory", "netemctl", used.ru_maxrss / 1e3, "MB", None)
        if self.are_real:
            add("time", "netemctl status", self.status_took * 1e3, "ms", None)
            add("CPU time of an agent", "netemctl", seen["cpu"] * 1e3 / self.nodes, "ms", None)
            return
        requests = sum(count for count, _, _ in seen["requests"].values())
        wire = sum(sent + got for _, sent, got in seen["requests"].values())
        bare = self.bare(seen)
        add("CPU time a node", "bare TLS (Python, OpenSSL)", bare * 1e3 / self.nodes, "ms")
        add("bytes a node", "netemctl", wire / self.nodes, "B", None)
        add("connections and requests a node", "netemctl", (seen["connections"] + requests) / self.nodes, "", None)

    def seen(self):
        """What the agents have seen since the last time."""
        self.agents.stdin.write("\n")
        self.agents.stdin.flush()
        return json.loads(self.agents.stdout.readline())

    def bare(self, seen):
        """The CPU time of the same without netemctl: as many connections, and requests and answers of the same mean sizes."""
        context = ssl.create_default_context(cafile=f"{self.pki}/controller/ca.pem")
        context.check_hostname = False
        context.load_cert_chain(f"{self.pki}/controller/cert.pem", f"{self.pki}/controller/key.pem")
        connections = max(1, seen["connections"])
        requests = []
        for path, (count, sent, _) in seen["requests"].items():
            body = max(0, sent // count - 100)
            # The answers of `stamp` and `commit` are short; a document would come back only from `wanted`, once.
            head = b"POST /v1/stamp HTTP/1.1\r\nhost: n\r\ncontent-length: %d\r\n\r\n" % body
            requests += [(count / connections, head + b" " * body)]
        cpu = time.process_time()
        debts = [0.0] * len(requests)
        made = min(connections, BARE)
        for number in range(made):
            host = address(number % self.nodes + 1)
            with socket.create_connection((host, self.port)) as plain:
                # Without this, the kernel waits 40 ms between the two writes of a handshake.
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secure = context.wrap_socket(plain)
                for index, (share, text) in enumerate(requests):
                    debts[index] += share
                    while debts[index] >= 0.999:
                        debts[index] -= 1
                        secure.sendall(text)
                        secure.recv(65536)
                secure.close()
        cpu = time.process_time() - cpu
        self.seen()
        return cpu * connections / made


def address(number):
    return f"127.64.{number >> 8}.{number & 255}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
