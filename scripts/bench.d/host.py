"""What every part needs: processes with their times, namespaces, labs, and the results of a part."""

import contextlib
import ctypes
import datetime
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = pathlib.Path(os.environ.get("BENCH_WORK", ROOT / "target" / "bench"))
NETEMCTL = os.environ.get("BENCH_NETEMCTL", str(ROOT / "target" / "release" / "netemctl"))
TOOLS = str(WORK / "tools")
RUN = pathlib.Path("/run/netemctl-bench")

libc = ctypes.CDLL(None, use_errno=True)
MS_BIND = 4096


class Failed(Exception):
    """A command ended with an error."""


def say(text):
    print(text, flush=True)


def spawn(command, **options):
    """A process in the background, which ends with this one at the latest."""
    process = subprocess.Popen([str(word) for word in command], **{"stdin": subprocess.DEVNULL, **options})
    started.append(process)
    return process


started = []


def end_all():
    """Ends what `spawn` started and what is still there."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
    started.clear()


def run(command, limit=300, expect=(0,), env=None):
    """Runs a command; returns its stdout."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=limit, env=env and {**os.environ, **env})
    if done.returncode not in expect:
        # The message goes into the page, so it names programs without the folders of this machine.
        words = [str(word).replace(f"{WORK}/", "").replace(f"{ROOT}/", "") for word in command]
        raise Failed(f"{' '.join(words)[:200]}: exit code {done.returncode}: {done.stderr.strip()[:300]}")
    return done.stdout


def timed(command, **options):
    """Runs a command; returns the milliseconds that it took, and its stdout."""
    begin = time.monotonic_ns()
    out = run(command, **options)
    return (time.monotonic_ns() - begin) / 1e6, out


class Results:
    """The samples of a part: for each row (a group and what was done) and each program, some numbers."""

    def __init__(self, name, settings):
        self.name, self.rows, self.notes, self.begun = name, {}, [], time.monotonic()
        self.settings = settings

    def add(self, group, work, who, value, unit="ms", at=None, better="lower", bound=None):
        """`at`: the place on the x axis of a plot. `better`: "lower", "higher", or None where neither is."""
        row = self.rows.setdefault((group, work), {"group": group, "work": work, "unit": unit, "better": better, "samples": {}})
        if at is not None:
            row["at"] = at
        row["samples"].setdefault(who, []).append(round(value, 4) if value is not None else None)

    def time(self, group, work, who, command, **options):
        """Runs one command, or several one after another as a loop does, and notes the time. A failure is noted too."""
        at = options.pop("at", None)
        commands = [command] if isinstance(command[0], (str, pathlib.Path)) else command
        out, begin = "", time.monotonic_ns()
        try:
            for each in commands:
                out = run(each, **options)
        except (Failed, subprocess.TimeoutExpired) as error:
            self.failed(group, work, who, error, at=at)
            return None
        self.add(group, work, who, (time.monotonic_ns() - begin) / 1e6, at=at)
        return out

    def failed(self, group, work, who, error, unit="ms", at=None):
        self.add(group, work, who, None, unit, at=at)
        self.note(f"{group}, {work}, {who}: {str(error)[:300]}")

    def note(self, text):
        text = " ".join(text.split())
        say(f"   note: {text}")
        if text not in self.notes:
            self.notes.append(text)

    def save(self):
        """Writes the part's results at its end, so that a later crash loses nothing."""
        meta = {**about(), "rounds": self.settings.rounds, "quick": self.settings.quick,
                "seconds": round(time.monotonic() - self.begun)}
        text = json.dumps({"meta": meta, "rows": list(self.rows.values()), "notes": self.notes}, indent=1)
        folder = WORK / "out"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(text)

    def show(self):
        for row in self.rows.values():
            texts = []
            for who, samples in row["samples"].items():
                good = [sample for sample in samples if sample is not None]
                texts.append(f"{who} {statistics.median(good):.4g} ({min(good):.4g}-{max(good):.4g})" if good else f"{who} failed")
            say(f"   {row['group']}, {row['work']} [{row['unit']}]: " + "; ".join(texts))


def about():
    """The machine, the kernel and the versions."""
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    uml = "User Mode" in model or "UML" in model
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "kernel": f"{os.uname().sysname} {os.uname().release}" + (" (user-mode Linux)" if uml else ""),
        "cpu": os.environ.get("BENCH_CPU", model),
        "cpus": len(os.sched_getaffinity(0)),
        "host_cpus": int(os.environ.get("BENCH_CPUS", "0")),
        "versions": versions(),
    }


def versions():
    found = {}
    for name, command in {"netemctl": [NETEMCTL, "--version"], "tc": ["tc", "-V"], "iptables": ["iptables-legacy", "-V"],
                          "iperf3": ["iperf3", "--version"]}.items():
        with contextlib.suppress(Failed, FileNotFoundError):
            found[name] = run(command).splitlines()[0].replace(", libbpf", " libbpf").strip()
    found["netemctl"] += os.environ.get("BENCH_COMMIT", "")
    found.update(json.loads(os.environ.get("BENCH_PEERS", "{}")))
    return found


# ---- Namespaces and agents ----


def name_namespace(name, pid):
    """Makes `tc -n NAME` work for the network namespace of a process, without another process."""
    folder = pathlib.Path("/run/netns")
    folder.mkdir(exist_ok=True)
    (folder / name).touch()
    if libc.mount(f"/proc/{pid}/ns/net".encode(), str(folder / name).encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), "mount")


def forget_namespaces():
    for path in pathlib.Path("/run/netns").glob("*"):
        while libc.umount2(str(path).encode(), 2) == 0:
            pass
        path.unlink()


def inside(name, *command):
    """A command in a namespace. nsenter is the cheapest way for programs that know no namespaces."""
    return ["nsenter", f"--net=/run/netns/{name}", *command]


def agents():
    """The processes of a lab's agents, by node."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().decode().split("\0")
            if len(words) > 1 and words[1] == "agent":
                config = next((word for word in words if word.endswith("/agent.toml")), None)
                if config:
                    found[pathlib.Path(config).parent.name] = int(path.name)
    return found


@contextlib.contextmanager
def lab(topology):
    """A lab of netemctl, whose namespaces also have names for `tc -n`."""
    run([NETEMCTL, "lab", "up", topology], limit=600)
    try:
        pids = agents()
        for node, pid in pids.items():
            name_namespace(node, pid)
        yield pids
    finally:
        forget_namespaces()
        run([NETEMCTL, "lab", "down"], limit=300, expect=range(256))


@contextlib.contextmanager
def one_agent(links):
    """One namespace x1 with the interface db0, and the agent of the node n1 in it. `links`: a function that makes db0."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    run(["ip", "netns", "add", "x1"])
    agent = None
    try:
        links()
        config, socket = RUN / "agent.toml", RUN / "agent.sock"
        config.write_text(f'node = "n1"\ninterfaces = ["db0"]\nsocket = "{socket}"\njournal = "{RUN}/journal/n1.json"\n')
        (RUN / "journal").mkdir(mode=0o700)
        with open(RUN / "agent.log", "w") as log:
            # The environment of the systemd unit and of a lab's agents.
            env = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
            agent = spawn(inside("x1", NETEMCTL, "agent", "--config", config), stderr=log, stdout=log, env=env)
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.1)
        else:
            raise Failed(f"the agent does not start: {(RUN / 'agent.log').read_text()[:500]}")
        time.sleep(0.5)
        yield agent.pid
    finally:
        if agent:
            agent.terminate()
            agent.wait()
        run(["ip", "netns", "del", "x1"], expect=range(256))


def memory(pid):
    """The resident memory of a process, in MB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    raise Failed("no VmRSS")


def shuffled(programs, turn):
    """The programs in another order in each round, so that none always comes after the same one."""
    order = list(programs)
    random.Random(turn).shuffle(order)
    return order


def on_signals():
    """Turns signals into exceptions, so that every `finally` runs."""
    def end(number, _):
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
