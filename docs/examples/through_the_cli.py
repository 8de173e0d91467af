#!/usr/bin/env python3
"""Runs a benchmark with a WAN and with a partition, through netemctl's command line.

Python 3.11, standard library only. Usage: through_the_cli.py TOPOLOGY SIDE RESULT.json
"""

import json
import logging
import os
import platform
import subprocess
import sys
import time

NETEMCTL = os.environ.get("NETEMCTL", "netemctl")
log = logging.getLogger("netemctl")

OK, DIFFERS, UNREACHABLE, CONFLICT, TIMED_OUT = 0, 4, 6, 9, 124
WORTH_ANOTHER_TRY = {UNREACHABLE, CONFLICT, TIMED_OUT}


class Failed(Exception):
    """The error that ends an experiment, with its exit code."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


def failed(command, code, document):
    """The error of a failed command. Nothing has changed, unless its message says otherwise."""
    error = document["error"]
    details = [f"{node}: {said}" for node, said in error.get("nodes", {}).items()]
    return Failed(code, "; ".join([f"{command} ended with {code}: {error['message']}", *details]))


def netemctl(*arguments, seconds=60, tries=3):
    """Runs one command. Returns its exit code (0, or 4: something differs) and its document."""
    command = [NETEMCTL, "--json", "--timeout", str(seconds), *arguments]
    for left in reversed(range(tries)):
        began = time.monotonic()
        # After --timeout, the command rolls back and ends by itself, so it does not reach this limit.
        # A command that is killed cannot roll back.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 30)
        document = json.loads(done.stdout)
        log.info("%s: exit code %d after %.1f s", " ".join(arguments), done.returncode, time.monotonic() - began)
        if "error" not in document:
            return done.returncode, document
        if done.returncode not in WORTH_ANOTHER_TRY or not left:
            raise failed(" ".join(arguments), done.returncode, document)
        log.warning("%s; trying again", document["error"]["message"])
        time.sleep(2)


def verified():
    """Measures every pair. Returns the document, or raises if a pair differs from the wanted network."""
    code, report = netemctl("verify", "--tolerance", os.environ.get("TOLERANCE", "2"), seconds=300)
    if code == DIFFERS:
        wrong = [f"{pair['from']} to {pair['to']}: {pair['verdict']}" for pair in report["pairs"]]
        raise Failed(code, f"{report['wrong']} pairs are not as wanted; the worst: {'; '.join(wrong[:3])}")
    return report


def surroundings():
    """The data that another person needs to repeat a result."""
    version = subprocess.run([NETEMCTL, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    code, status = netemctl("status")
    if code != OK:
        raise Failed(code, "a kernel is not as wanted, or the nodes do not agree: see netemctl status")
    node = next(iter(status["nodes"].values()))
    return {
        "netemctl": version,
        "agents": sorted({node["version"] for node in status["nodes"].values()}),
        "controller_kernel": platform.release(),
        # Equal stamps mean the same document: topology, changes, partitions, inventory.
        "stamp": node["stamp"],
        "topology": node["topology"],
        "partitions": status["partitions"],
        "changes": status["overlays"],
        "profiles": {name: node["profiles"] for name, node in status["nodes"].items()},
    }


def benchmark(phase):
    """Put your own benchmark here."""
    time.sleep(0.1)
    return {"phase": phase}


def main(topology, side, result):
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    runs = []

    def run(phase, *command):
        _, change = netemctl(*command)
        report = verified()
        medians = {f"{pair['from']}-{pair['to']}": [each["median_rtt_ms"] for each in pair["measured"]] for pair in report["pairs"]}
        at = {"began": time.time(), "onset": change["onset"], "seed": change.get("seed")}
        runs.append({"surroundings": surroundings(), "measured": medians, "at": at, "result": benchmark(phase)})
        # Keep the results even if the next phase fails.
        with open(f"{result}.new", "w", encoding="utf-8") as file:
            json.dump(runs, file, indent=2)
        os.replace(f"{result}.new", result)

    # Start from a known state.
    netemctl("clear")
    try:
        run("wan", "apply", topology)
        # With its own name, a repeated partition changes nothing, and heal ends no other partition.
        run("partition", "partition", side, "--name", "experiment")
        run("healed", "heal", "experiment")
    finally:
        # Also after a failure and after Ctrl-C.
        netemctl("clear")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Failed as error:
        log.error("%s", error)
        # The caller gets the exit code of the command that failed.
        sys.exit(error.code)
