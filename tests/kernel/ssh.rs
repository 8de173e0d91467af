//! The main commands over real sshds, on nodes without a daemon. Timed partitions end although sessions, controllers or
//! keepers have ended, and nothing is left on the nodes.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    lab::{Ran, retry_while_busy, shipped},
    sshd::{HOME, Hosts, kill_process, strip, wait_until},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn hosts(have_netemctl: bool) -> Hosts {
    Hosts::up(&shipped("uniform-3-rtt100.toml"), have_netemctl)
}

#[track_caller]
fn apply(hosts: &Hosts) {
    let topology = shipped("uniform-3-rtt100.toml");
    drop(hosts.run(["apply", &*topology.to_string_lossy()]).expect(0));
}

fn status(hosts: &Hosts) -> Value {
    hosts.netemctl("status --json").expect(0).json()
}

/// True if the node has ingress filters that drop packets, as in a partition.
fn is_cut(hosts: &Hosts, node: &str) -> bool {
    hosts.lab.exec(node, "tc filter show dev db0 ingress").contains("drop")
}

/// Runs `apply`, `verify`, a timed partition that ends without a session, `heal` and `clear`. The nodes then have no
/// qdiscs, processes or files of netemctl.
#[test]
fn the_main_job_by_ssh_leaves_nothing_behind() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    apply(&hosts);
    drop(retry_while_busy(|| hosts.netemctl("verify --count 5 --tolerance 20")).expect(0));
    let shown = status(&hosts);
    for node in NODES {
        let keepers = hosts.keepers(node);
        assert_eq!(keepers.len(), 1, "{node} has one keeper");
        assert_eq!(shown["nodes"][node]["keeper"], keepers[0]);
        assert_eq!(shown["nodes"][node]["state"], "ok");
    }

    // The partition ends without a session and without a controller. Only the keepers run on the nodes.
    drop(hosts.netemctl("partition n3 --for 6s").expect(0));
    let began = Instant::now();
    wait_until("no session is left", || NODES.iter().all(|node| hosts.processes(node).len() == 1));
    assert!(NODES.iter().all(|node| is_cut(&hosts, node)));
    wait_until("the partition is over", || !NODES.iter().any(|node| is_cut(&hosts, node)));
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());

    // A topology in force needs no process. The next session continues from the journal.
    wait_until("the keepers have ended", || NODES.iter().all(|node| hosts.processes(node).is_empty()));
    assert!(hosts.lab.exec("n1", "tc qdisc show dev db0").contains("netem"));
    let shown = status(&hosts);
    assert_eq!(shown["nodes"]["n1"]["topology"], "uniform-3-rtt100");
    assert_eq!(shown["nodes"]["n1"]["partitions"].as_array().map(Vec::len), Some(0));

    drop(hosts.netemctl("partition n1").expect(0));
    drop(hosts.netemctl("heal").expect(0));
    drop(hosts.netemctl("clear").expect(0));
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}

/// The operator may run only the agent as root. ssh reaches n2 and n3 through the jump host n1.
#[test]
fn the_main_job_is_done_by_sudo_and_through_a_jump_host() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    hosts.rewrite("config", |text| {
        let behind = |text: String, node: &str| {
            let host = format!("Host host-of-{node}\n");
            text.replace(&host, &format!("{host} ProxyJump host-of-n1\n"))
        };
        behind(behind(text.replace("User root", "User operator"), "n2"), "n3")
    });
    let topology = shipped("uniform-3-rtt100.toml");
    let apply = |sudo: &[&str]| hosts.run(["apply", &*topology.to_string_lossy()].iter().chain(sudo));
    let refused = apply(&[]).expect(6);
    assert!(refused.stderr.contains("run the agent by --ssh-sudo"), "{}", refused.stderr);

    drop(apply(&["--ssh-sudo"]).expect(0));
    let logins = fs::read_to_string(hosts.path("n3.log")).unwrap();
    assert!(logins.contains("Accepted publickey for operator from 10.77.0.1 "), "{logins}");
    drop(retry_while_busy(|| hosts.netemctl("verify --count 5 --tolerance 20 --ssh-sudo")).expect(0));
    drop(hosts.netemctl("partition n3 --for 3s --ssh-sudo").expect(0));
    assert!(NODES.iter().all(|node| is_cut(&hosts, node)));
    wait_until("the partition is over", || !NODES.iter().any(|node| is_cut(&hosts, node)));
    drop(hosts.netemctl("clear --ssh-sudo").expect(0));
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}

/// The README's commands for ssh, from `netemctl inventory init --push` on, for three nodes instead of nine.
fn readme_commands() -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines = readme.lines().skip_while(|line| !line.starts_with("    netemctl inventory init --push"));
    let lines = lines.take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().replace("n[1-9]", "n[1-3]").replace("hierarchical-9", "uniform-3-rtt100")).collect()
}

#[test]
fn the_commands_of_the_readme_find_what_was_pushed_and_leave_the_machines_as_they_were() {
    let hosts = hosts(false);
    let before = hosts.lab.tc();
    hosts.rewrite("config", |text| text.replace("host-of-", ""));
    fs::create_dir(hosts.path("bin")).unwrap();
    strip(env!("CARGO_BIN_EXE_netemctl"), &hosts.path("bin/netemctl"));
    std::os::unix::fs::symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/topologies"), hosts.path("topologies")).unwrap();
    let lines = readme_commands();
    let [init, _edit, export, apply, clear] = &lines[..] else { panic!("{lines:?}") };
    let run = |script: &str| {
        let folder = hosts.path("");
        let path = format!("cd {}; PATH=$PWD/bin:$PATH; {script}", folder.display());
        let arguments = ["lab", "exec", "controller", "--", "sh", "-ec", &path];
        let mut command = hosts.lab.command(arguments);
        command.env("NETEMCTL_SSH", format!("ssh -F {}", hosts.path("config").display())).output().unwrap().into()
    };
    let ran: Ran = run(init);
    assert_eq!(ran.expect(0).stderr.matches("copied this netemctl").count(), 3);
    // The README tells the reader to add the interface to the file.
    hosts.rewrite("cluster.toml", |text| text.replace("[nodes]", "interface = \"db0\"\n[nodes]"));
    drop(run(&format!("{export}\n{apply}")).expect(0));
    assert!(NODES.iter().all(|node| hosts.lab.exec(node, "tc qdisc show dev db0").contains("netem")));
    drop(run(&format!("{export}\nnetemctl partition n3\n{clear}")).expect(0));
    assert_eq!(hosts.lab.tc(), before);
    // Only the pushed program stays on the nodes.
    for node in NODES {
        let is_pushed = |file: &String| file.starts_with("/run/test/home/.cache/netemctl/netemctl-");
        wait_until("nothing but the pushed program is left", || {
            hosts.processes(node).is_empty() && hosts.left_on(node).iter().all(is_pushed)
        });
    }
}

/// Kills the controller during a measurement, cuts the ssh connections of a node, and kills a keeper.
#[test]
fn a_timed_partition_ends_after_the_controller_the_connection_or_the_keeper_is_lost() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    apply(&hosts);

    // The controller is killed during a `verify`. Its ssh processes and its sessions end by themselves.
    drop(hosts.netemctl("partition n2 --for 8s").expect(0));
    let mut verify = hosts.command(["verify", "--count", "500"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("there are sessions", || hosts.processes("n1").len() == 2);
    verify.kill().unwrap();
    drop(verify.wait());
    wait_until("no session is left", || NODES.iter().all(|node| hosts.processes(node).len() == 1));
    wait_until("no ssh is left", || hosts.ssh_processes().is_empty());
    wait_until("the partition is over", || !NODES.iter().any(|node| is_cut(&hosts, node)));

    // The management network of n2 fails. The keeper on n2 still ends the partition.
    drop(hosts.netemctl("partition n2 --for 8s").expect(0));
    hosts.lab.exec("n2", "ip link set mgmt0 down");
    assert!(is_cut(&hosts, "n2"));
    let unreachable = hosts.netemctl("status").expect(6);
    assert!(unreachable.stdout.contains("n2: no agent at ssh://host-of-n2"), "{}", unreachable.stdout);
    wait_until("the partition is over", || !is_cut(&hosts, "n2"));
    hosts.lab.exec("n2", "ip link set mgmt0 up");

    // A killed keeper does not end the partition. The next session starts a new keeper, which ends the partition.
    drop(hosts.netemctl("partition n2 --for 3s").expect(0));
    let keeper = hosts.keepers("n2")[0];
    kill_process(keeper);
    thread::sleep(Duration::from_secs(4));
    assert!(is_cut(&hosts, "n2"));
    let shown = status(&hosts);
    assert_ne!(shown["nodes"]["n2"]["keeper"], keeper);
    wait_until("the partition is over", || !is_cut(&hosts, "n2"));

    drop(hosts.netemctl("clear").expect(0));
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}

/// Without netemctl on the nodes and after each ssh failure, `status` prints one line with the cause. `--push-binary`
/// copies netemctl once.
#[test]
fn status_names_the_cause_of_an_ssh_failure_and_push_copies_netemctl_once() {
    let hosts = hosts(false);
    let assert_cause = |part: &str| {
        let ran = hosts.netemctl("status").expect(6);
        // Nodes with the same error share a line.
        let is_of_n1 = |line: &&str| line.starts_with("n1: ") || line.starts_with("n[1-3]: ");
        let lines: Vec<&str> = ran.stdout.lines().filter(is_of_n1).collect();
        assert!(lines.len() == 1 && lines[0].contains(part), "{}{}", ran.stdout, ran.stderr);
    };
    assert_cause("no netemctl on the host; install it there, or copy this one there with --push");

    let known = fs::read_to_string(hosts.path("known")).unwrap();
    hosts.rewrite("known", |_| String::new());
    assert_cause("its host key is not known; log in once with ssh host-of-n1");
    let stranger = fs::read_to_string(hosts.path("stranger.pub")).unwrap();
    hosts.rewrite("known", |_| format!("10.77.0.1 {stranger}10.77.0.2 {stranger}10.77.0.3 {stranger}"));
    assert_cause("ssh-keygen -R host-of-n1");
    hosts.rewrite("known", |_| known);
    let authorized = fs::read_to_string(hosts.path("authorized")).unwrap();
    hosts.rewrite("authorized", |_| stranger);
    assert_cause("ssh cannot log in (root@10.77.0.1: Permission denied (publickey)");
    hosts.rewrite("authorized", |_| authorized);

    // netemctl removes a copy that does not run on the host. One node is enough from here on.
    hosts.rewrite("inventory.toml", |text| text.split("[nodes.n2]").next().unwrap_or_default().to_owned());
    hosts.rewrite("fake", |_| "not a program".to_owned());
    let fake = hosts.path("fake");
    let failed = hosts.run(["status", "--push-binary", &*fake.to_string_lossy()]).expect(6);
    assert!(failed.stdout.contains("ssh://host-of-n1: netemctl could not be copied there: "), "{}", failed.stdout);
    assert_eq!(hosts.files_below("n1", HOME), Vec::<String>::new());

    let small = hosts.path("small");
    strip(env!("CARGO_BIN_EXE_netemctl"), &small);
    let push = ["status", "--push-binary", &*small.to_string_lossy()];
    let first = hosts.run(push).expect(0);
    assert_eq!(first.stderr.matches("copied this netemctl").count(), 1, "{}", first.stderr);
    let again = hosts.run(push).expect(0);
    assert!(!again.stderr.contains("copied"), "{}", again.stderr);
    let files = hosts.files_below("n1", HOME);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].starts_with(concat!("/run/test/home/.cache/netemctl/netemctl-", env!("CARGO_PKG_VERSION"), "-")));
}

/// On a host without a config, the inventory names the interface to shape. The agent refuses the interface of its own
/// ssh session.
#[test]
fn the_interface_of_the_ssh_session_is_refused() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    hosts.rewrite("inventory.toml", |text| {
        text.replace("\"db0\"", "\"mgmt0\"").replace("10.78.", "10.77.").replace("fd78", "fd77")
    });
    let topology = shipped("uniform-3-rtt100.toml");
    let refused = hosts.run(["apply", &*topology.to_string_lossy()]).expect(6);
    assert!(
        refused.stderr.contains("interface mgmt0 has the address that this ssh session came in by"),
        "{}",
        refused.stderr
    );
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}

/// A config on the host takes precedence over the inventory.
#[test]
fn a_config_on_the_host_determines_the_node_name_and_the_interfaces() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    hosts.configure("n1", "node = 'n1'\ninterfaces = ['eth9']\nsocket = '/run/n1.sock'\n");
    hosts.configure("n2", "node = 'n7'\ninterfaces = ['db0']\nsocket = '/run/n2.sock'\n");
    let shown = hosts.netemctl("status").expect(6);
    assert!(shown.stdout.contains("this host is node n7, not n2: see /etc/netemctl/agent.toml"), "{}", shown.stdout);
    hosts.configure("n2", "node = 'n2'\ninterfaces = ['db0']\nsocket = '/run/n2.sock'\n");
    let topology = shipped("uniform-3-rtt100.toml");
    let refused = hosts.run(["apply", &*topology.to_string_lossy()]).expect(5);
    assert!(refused.stderr.contains("n1: interface db0 is not one that this agent may touch"), "{}", refused.stderr);
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}
