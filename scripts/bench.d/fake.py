"""fake.py COUNT PKI PORT: COUNT agents that agree to everything at once, by HTTPS, in one process. They show the controller's own cost.

Agent nK listens on 127.64.x.y with the certificate PKI/nodes/nK. Prints READY. At SIGUSR1, it prints on one line the
connections, the requests with their sizes, and the CPU time since the last time, as JSON.
"""

import asyncio
import gzip
import hashlib
import json
import os
import resource
import signal
import ssl
import sys
import time

VERSION = os.environ.get("BENCH_VERSION", "0.1.0")
EMPTY = {"generation": 0, "topology": None, "inventory": {"nodes": {}, "zones": {}}, "overlays": [], "partitions": []}

STATUS = {
    "version": VERSION, "interface": "db0", "topology": "bench", "by_hand": 0, "cuts": [], "draining": 0, "drift": [],
    "foreign": [], "journal": None, "missing": [], "overlays": [], "partitions": [], "recovered": None, "unconfirmed_s": None,
    "profiles": [{"addresses": 2, "delay_ms": 50.0, "limit": 244032, "nodes": 2, "queued": 0}],
    "watch": {"incidents": [], "journal_behind": None, "next_try_s": None, "obstacle": None, "on_drift": "report", "repairs": 0,
              "since": None},
}


def address(number):
    return f"127.64.{number >> 8}.{number & 255}"


class Fleet:
    """What all agents have in common: they have the same document."""

    def __init__(self):
        self.document = json.dumps(EMPTY, separators=(",", ":")).encode()
        self.stamp = self.stamp_of(self.document)
        self.pending = None
        self.forget()

    def forget(self):
        self.connections, self.requests, self.cpu = 0, {}, time.process_time()

    @staticmethod
    def stamp_of(document):
        generation = json.loads(document)["generation"]
        return json.dumps({"generation": generation, "digest": hashlib.sha256(document).hexdigest()}).encode()

    def answer(self, path, body, node):
        """The status and the body of an answer. Only n1 looks at documents: it asks for the whole one."""
        if path == "/v1/stamp":
            return 200, self.stamp
        if path == "/v1/status":
            return 200, json.dumps({**STATUS, "node": f"n{node}", "stamp": json.loads(self.stamp)}).encode()
        if path == "/v1/wanted":
            return 200, b'{"wanted":' + self.document + b',"absent":{"ended":[],"asleep":[]},"begins":[]}'
        if path == "/v1/prepare":
            if node == 1:
                at = body.find(b'"wanted":')
                if at < 0:
                    return 422, b'{"code":"needs-document","message":"send the whole document (`wanted`)"}'
                self.pending = body[at + 9:-1]
            return 200, b'{"interface":"db0","change":{"steps":[],"draining":[]}}'
        if path == "/v1/commit":
            return 200, b'{"stamp":' + self.stamp_of(self.pending or self.document) + b',"writes":1,"onset":null,"told_late":null}'
        if path == "/v1/confirm" and self.pending:
            self.document, self.stamp, self.pending = self.pending, self.stamp_of(self.pending), None
        if path == "/v1/rollback":
            self.pending = None
        return 200, b'{"stamp":' + self.stamp + b"}"

    async def serve(self, reader, writer, node):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                path = head.split(b" ", 2)[1].decode()
                length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                if node == 1 and any(line.startswith(b"content-encoding:") and b"gzip" in line for line in lines):
                    body = gzip.decompress(body)
                status, reply = self.answer(path, body, node)
                text = b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(reply)) + reply
                seen = self.requests.setdefault(path, [0, 0, 0])
                seen[0] += 1
                seen[1] += len(head) + length
                seen[2] += len(text)
                writer.write(text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def report(self):
        print(json.dumps({"connections": self.connections, "requests": self.requests, "cpu": time.process_time() - self.cpu}), flush=True)
        self.forget()


def context(folder):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0  # netemctl resumes no session
    made.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    made.load_verify_locations(f"{folder}/ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


async def main(count, pki, port):
    fleet = Fleet()
    for number in range(1, count + 1):
        await asyncio.start_server(lambda reader, writer, number=number: fleet.serve(reader, writer, number), address(number), port,
                                   backlog=16, limit=1 << 20, ssl=context(f"{pki}/nodes/n{number}"))
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_signal_handler(signal.SIGUSR1, fleet.report)
    print("READY", flush=True)
    parent = os.getppid()
    while not end.is_set() and os.getppid() == parent:  # ends with the benchmark, however that ends
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
