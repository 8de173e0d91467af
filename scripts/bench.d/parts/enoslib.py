"""EnOSlib's NetemHTB and netemctl, both over ssh to the same sshds in namespaces."""

import contextlib
import json
import pathlib
import shutil
import time

from host import HERE, NETEMCTL, WORK, Failed, inside, run, spawn
import peers

NODES = 3


def measure(results, settings):
    python = WORK / "peers" / "bin" / "python3"
    group = f"{NODES} nodes over ssh"
    rounds = 1 if settings.quick else 2
    with hosts() as folder:
        inventory = folder / "inventory.toml"
        inventory.write_text('[defaults]\ntransport = "ssh"\nuser = "root"\ninterface = "db0"\n\n[nodes]\n' + "".join(
            f'n{number} = {{ host = "10.98.0.{number}", addresses = ["10.99.0.{number}"] }}\n' for number in range(1, NODES + 1)))
        before, after = folder / "before.toml", folder / "after.toml"
        before.write_text(peers.topology(NODES, NODES, intra=150))
        after.write_text(peers.topology(NODES, NODES, intra=151))
        env = {"NETEMCTL_INVENTORY": str(inventory), "NETEMCTL_SSH": f"ssh -F {folder}/ssh_config"}
        # Both sides log in once before the time begins.
        run([NETEMCTL, "apply", "--wait", "2m", before], env=env)
        run([NETEMCTL, "clear", "--wait", "2m"], env=env)
        for _ in range(rounds):
            results.time(group, "apply", "netemctl", [NETEMCTL, "apply", before], env=env)
            results.time(group, "one delay changes", "netemctl", [NETEMCTL, "apply", after], env=env)
            results.time(group, "clear", "netemctl", [NETEMCTL, "clear"], env=env)
        if not python.exists():
            results.note("EnOSlib is not installed")
            return
        try:
            out = run([python, HERE / "enoslib_peer.py", folder, NODES, rounds], limit=1500,
                      env={"PATH": f"{python.parent}:/usr/sbin:/usr/bin:/sbin:/bin"})
        except Failed as error:
            results.failed(group, "apply", "EnOSlib", error)
            return
        for line in out.splitlines():
            if line.startswith("{"):
                for work, took in json.loads(line).items():
                    results.add(group, work, "EnOSlib", took)


@contextlib.contextmanager
def hosts():
    """Namespaces with an sshd, a network `ctl0` for ssh, and a network `db0` to shape."""
    folder = pathlib.Path("/run/bench-ssh")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"])
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "ssh_config").write_text(
        f"Host *\n  User root\n  IdentityFile {folder}/key\n  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking no\n")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/key\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        f"SetEnv PATH={pathlib.Path(NETEMCTL).parent}:/usr/sbin:/usr/bin:/sbin:/bin\nPidFile none\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\n")
    lines = [f"link add {name} type bridge" for name in ("ctl", "db")]
    lines += ["link set ctl up", "link set db up", "addr add 10.98.0.254/24 dev ctl"]
    for number in range(1, NODES + 1):
        for name, network in (("ctl", 98), ("db", 99)):
            lines.append(f"link add {name}{number} type veth peer name {name}0 netns e{number}")
            lines.append(f"link set {name}{number} master {name} up")
    started = []
    try:
        for number in range(1, NODES + 1):
            run(["ip", "netns", "add", f"e{number}"])
        run(["ip", "-batch", peers.batch(folder / "ip", lines)])
        for number in range(1, NODES + 1):
            run(["ip", "-n", f"e{number}", "-batch", peers.batch(folder / "ip", [
                "link set lo up", "link set ctl0 up", "link set db0 up", f"addr add 10.98.0.{number}/24 dev ctl0",
                f"addr add 10.99.0.{number}/24 dev db0"])])
            # Each host has its own /run and /root, as a machine has: netemctl's agent and Ansible keep files there.
            script = (f"mount --bind {folder} /mnt 2>/dev/null; mkdir -p /dev/shm/e{number} && mount --bind /dev/shm/e{number} /run && "
                      f"mkdir -m 700 {folder} && mkdir /run/sshd && mount -t tmpfs tmpfs /root && mount --bind /mnt {folder} && "
                      f"exec /usr/sbin/sshd -D -e -f {folder}/sshd_config")
            started.append(spawn(inside(f"e{number}", "unshare", "--mount", "sh", "-c", script),
                                 stderr=open(folder / f"sshd.{number}.log", "w")))
        time.sleep(3)
        yield folder
    finally:
        for process in started:
            process.terminate()
        for number in range(1, NODES + 1):
            run(["ip", "netns", "del", f"e{number}"], expect=range(256))
        for name in ("ctl", "db"):
            run(["ip", "link", "del", name], expect=range(256))
