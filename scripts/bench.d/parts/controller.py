"""The controller alone: its CPU time, memory and bytes for each node, beside bare TLS with requests of the same sizes."""

import json
import os
import pathlib
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from fake import address
from host import HERE, NETEMCTL, say, spawn, run
import peers

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
            Controller(results, nodes, pathlib.Path(folder)).measure(2 if nodes >= 1000 else settings.rounds)


class Controller:
    def __init__(self, results, nodes, folder):
        self.results, self.nodes, self.group = results, nodes, f"{nodes:,} agents"
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

    def measure(self, rounds):
        self.fakes = spawn([sys.executable, HERE / "fake.py", self.nodes, self.pki, self.port], stdout=subprocess.PIPE, text=True)
        if self.fakes.stdout.readline().strip() != "READY":
            raise RuntimeError("the fake agents do not start")
        try:
            for _ in range(rounds):
                self.command("status", "status")
                self.command("apply", "apply", self.before)
                self.command("re-apply", "apply", self.before)
                self.command("one delay changes", "apply", self.after)
                self.command("partition", "partition", "Z3")
                self.command("clear", "clear")
        finally:
            self.fakes.terminate()
            self.fakes.wait()
            self.fakes.stdout.close()

    def command(self, work, *words):
        begin = time.monotonic()
        environment = {**os.environ, "NETEMCTL_INVENTORY": str(self.inventory)}
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
        requests = sum(count for count, _, _ in seen["requests"].values())
        wire = sum(sent + got for _, sent, got in seen["requests"].values())
        bare, bare_took = self.bare(seen)
        add = lambda what, who, value, unit, better="lower": self.results.add(
            self.group, f"{work}: {what}", who, value, unit=unit, at=self.nodes, better=better)
        add("CPU time a node", "netemctl", cpu * 1e3 / self.nodes, "ms")
        add("CPU time a node", "bare TLS (Python, OpenSSL)", bare * 1e3 / self.nodes, "ms")
        add("time", "netemctl", took * 1e3, "ms")
        add("time", "bare TLS (Python, OpenSSL)", bare_took * 1e3, "ms")
        add("memory", "netemctl", used.ru_maxrss / 1e3, "MB", None)
        add("bytes a node", "netemctl", wire / self.nodes, "B", None)
        add("connections and requests a node", "netemctl", (seen["connections"] + requests) / self.nodes, "", None)

    def seen(self):
        """What the agents have seen since the last time."""
        self.fakes.send_signal(signal.SIGUSR1)
        return json.loads(self.fakes.stdout.readline())

    def bare(self, seen):
        """Does the same without netemctl: as many connections, and requests and answers of the same mean sizes."""
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
        begin, cpu = time.monotonic(), time.process_time()
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
        took, cpu = time.monotonic() - begin, time.process_time() - cpu
        self.seen()
        return cpu * connections / made, took * connections / made


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
