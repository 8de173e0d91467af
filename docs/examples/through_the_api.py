#!/usr/bin/env python3
"""Cuts a node off and heals it through the agents' HTTP API, with one transaction over all agents each time.

Python 3.11, standard library only. Usage:
  through_the_api.py CUT NODE=unix:/run/netemctl/agent.sock...
  through_the_api.py CUT NODE=https://10.1.0.7:20094... with CA, CERT and KEY in the environment
Before the first change, it asks each host for the interface that the agent's config allows.
"""

import copy
import http.client
import json
import logging
import os
import socket
import ssl
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("netemctl")

WORTH_ANOTHER_TRY = {"conflict"}


class ApiError(Exception):
    """An agent's error. Decide by `code`; `message` is for people."""

    def __init__(self, node, code, message):
        super().__init__(f"{node}: {message} ({code})")
        self.node, self.code = node, code


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket: the agent of this machine."""

    def __init__(self, path, timeout):
        super().__init__("agent", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def controller_context():
    """Mutual TLS: trusts only the fleet's CA, and shows a certificate with the URI `netemctl:controller`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # TlsConnection checks the node of the agent instead of the host's name.
    context.check_hostname = False
    context.load_verify_locations(cafile=os.environ["CA"])
    context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
    return context


class TlsConnection(http.client.HTTPSConnection):
    """HTTPS to the agent of one node."""

    def __init__(self, node, host, port, timeout):
        super().__init__(host, port, timeout=timeout, context=controller_context())
        self.node = node

    def connect(self):
        super().connect()
        names = self.sock.getpeercert().get("subjectAltName", ())
        if ("URI", f"netemctl:agent/{self.node}") not in names:
            self.close()
            raise ssl.SSLError(f"what answers is not the agent of {self.node}")


class Fleet:
    """The agents of some nodes, called in parallel."""

    def __init__(self, addresses):
        self.addresses = addresses

    def call(self, node, path, request, timeout=10):
        kind, _, where = self.addresses[node].partition(":")
        if kind == "unix":
            connection = UnixConnection(where, timeout)
        else:
            host, _, port = where.strip("/").rpartition(":")
            connection = TlsConnection(node, host, int(port), timeout)
        try:
            connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ApiError(node, body["code"], body["message"])
        return body

    def call_all(self, path, request):
        """Sends `request(node)` to each node. Returns all answers, or raises the first error when all have answered."""
        with ThreadPoolExecutor(max_workers=len(self.addresses)) as pool:
            asked = {node: pool.submit(self.call, node, path, request(node)) for node in self.addresses}
        return {node: answer.result() for node, answer in asked.items()}

    def edit(self, change):
        """Changes the document in force, on all nodes or on none. Returns the new document."""
        stamps = self.call_all("/v1/stamp", lambda node: {})
        if len({stamp["digest"] for stamp in stamps.values()}) != 1:
            raise ApiError("the fleet", "conflict", "the nodes have different states")
        first = next(iter(self.addresses))
        document = self.call(first, "/v1/wanted", {})
        wanted = document["wanted"]
        # Another controller may be changing the document, and may still roll back its change.
        if document["unconfirmed"] or wanted["generation"] != stamps[first]["generation"]:
            raise ApiError(first, "conflict", "another controller is changing this node")
        # Before the first change, the document has no inventory.
        if set(wanted["inventory"]["nodes"]) != set(self.addresses):
            if wanted["topology"] or wanted["overlays"] or wanted["partitions"]:
                raise ApiError("the fleet", "bad-request", "what is in force is of other nodes; name them all")
            wanted["inventory"] = self.inventory()
        wanted = change(copy.deepcopy(wanted), wanted["generation"] + 1)
        ticket = f"example-{uuid.uuid4()}"
        try:
            # Each agent checks and computes the change, and writes nothing.
            prepared = self.call_all(
                "/v1/prepare", lambda node: {"ticket": ticket, "base": stamps[node], "wanted": wanted}
            )
            steps = {node: len(answer["change"]["steps"]) for node, answer in prepared.items()}
            # Each agent writes what affects no packet.
            self.call_all("/v1/ready", lambda node: {"ticket": ticket})
            # All nodes switch at this time, by their own clocks. It may be five seconds ahead at most.
            at = time.time_ns() + 200_000_000
            self.call_all("/v1/commit", lambda node: {"ticket": ticket, "at": at})
            # A node that does not receive this rolls back by itself, 15 s after the commit.
            self.call_all("/v1/confirm", lambda node: {"ticket": ticket})
        except BaseException:
            # After any error and after Ctrl-C, all nodes roll back. A second rollback does nothing.
            for node in self.addresses:
                try:
                    self.call(node, "/v1/rollback", {"ticket": ticket})
                except (OSError, ApiError) as error:
                    log.error("%s could not roll back, and will have forgotten in 30 s what it prepared: %s", node, error)
            raise
        try:
            # All nodes have confirmed. A node that does not receive this keeps the change too.
            self.call_all("/v1/confirm", lambda node: {"ticket": ticket, "by_all": True})
        except (OSError, ApiError) as error:
            log.warning("a node was not told that all have confirmed it: %s", error)
        log.info("generation %d is in force; steps: %s", wanted["generation"], steps)
        return wanted

    def inventory(self):
        """The inventory: each node's agent, the interface that may be shaped, and all addresses of that interface."""
        nodes = {}
        for node, host in self.call_all("/v1/host", lambda node: {}).items():
            interfaces = [interface for interface in host["interfaces"] if interface["is_allowed"]]
            if host["node"] != node or len(interfaces) != 1:
                allowed = [interface["name"] for interface in interfaces]
                raise ApiError(node, "bad-request", f"the host is node {host['node']}, and allows {allowed}; it needs one")
            addresses = [address.split("/")[0] for address in interfaces[0]["addresses"]]
            # netemctl displays the first address, so put link-local addresses last.
            addresses.sort(key=lambda address: address.startswith("fe80"))
            nodes[node] = {"agent": self.addresses[node], "interface": interfaces[0]["name"], "addresses": addresses}
        return {"nodes": nodes, "zones": {}}

    def edit_until_done(self, change, tries=5):
        """Like `edit`. After a conflict, repeats the edit on the current document."""
        for left in reversed(range(tries)):
            try:
                return self.edit(change)
            except ApiError as error:
                if error.code not in WORTH_ANOTHER_TRY or not left:
                    raise
                log.warning("%s; trying again", error)
                time.sleep(1)


def cut(node, name):
    def change(wanted, generation):
        wanted["partitions"].append(
            {"name": name, "shape": {"kind": "sides", "sides": [[node]]}, "since": generation}
        )
        return wanted | {"generation": generation}

    return change


def heal(name):
    def change(wanted, generation):
        partitions = [partition for partition in wanted["partitions"] if partition["name"] != name]
        return wanted | {"generation": generation, "partitions": partitions}

    return change


def main(node, *addresses):
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    fleet = Fleet(dict(address.split("=", 1) for address in addresses))
    # With a unique name, simultaneous runs heal only their own cuts.
    name = f"example-{uuid.uuid4()}"
    fleet.edit_until_done(cut(node, name))
    try:
        status = fleet.call_all("/v1/status", lambda node: {})
        print(json.dumps({name: [cut["address"] for cut in node["cuts"]] for name, node in status.items()}))
    finally:
        fleet.edit_until_done(heal(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
