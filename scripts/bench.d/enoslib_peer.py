"""enoslib_peer.py FOLDER NODES ROUNDS: lays the delays of three nodes by EnOSlib's NetemHTB, over ssh.

Prints one line of JSON a round: the milliseconds that `deploy`, `deploy` with one other delay, and `destroy` take.
"""

import json
import logging
import sys
import time

import enoslib

folder, nodes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
enoslib.init_logging(level=logging.ERROR)
enoslib.set_config(ansible_stdout="noop", g5k_cache=False)

roles = enoslib.Roles()
for number in range(1, nodes + 1):
    host = enoslib.Host(f"10.98.0.{number}", alias=f"n{number}", user="root", keyfile=f"{folder}/key",
                        extra={"ansible_ssh_common_args": f"-F {folder}/ssh_config", "ansible_python_interpreter": "/usr/bin/python3"})
    roles[f"n{number}"] = [host]
networks = enoslib.Networks()
networks["db"] = [enoslib.DefaultNetwork(address="10.99.0.0/24")]
roles = enoslib.sync_info(roles, networks)


def netem(delay):
    made = enoslib.NetemHTB()
    for source in range(1, nodes + 1):
        for target in range(1, nodes + 1):
            if source != target:
                made.add_constraints(src=roles[f"n{source}"], dest=roles[f"n{target}"], delay=delay, rate="10gbit",
                                     networks=networks["db"])
    return made


def timed(action):
    begin = time.monotonic()
    action()
    return (time.monotonic() - begin) * 1e3


for _ in range(rounds):
    took = {"apply": timed(netem("75ms").deploy), "one delay changes": timed(netem("75.5ms").deploy), "clear": timed(netem("75ms").destroy)}
    print(json.dumps(took), flush=True)
