//! The main job over real sshds, with no daemon on any node: deadlines hold whoever is gone, and nothing is left.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    lab::{Ran, retry_while_busy, shipped},
    sshd::{HOME, Hosts, end, strip, wait_until},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn hosts(are_equipped: bool) -> Hosts {
    Hosts::up(&shipped("uniform-3-rtt100.toml"), are_equipped)
}

#[track_caller]
fn apply(hosts: &Hosts) {
    let topology = shipped("uniform-3-rtt100.toml");
    drop(hosts.run(["apply", &*topology.to_string_lossy()]).expect(0));
}

fn status(hosts: &Hosts) -> Value {
    hosts.netemctl("status --json").expect(0).json()
}

/// How many packets a kernel of this node would drop: the filters that a partition is made of.
fn is_cut(hosts: &Hosts, node: &str) -> bool {
    hosts.lab.exec(node, "tc filter show dev db0 ingress").contains("drop")
}

/// Apply, verify, partition for a time with everybody gone, heal, clear; then the machines are as they were found.
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

    // A deadline holds with no session and no controller: what is left on the nodes are the keepers.
    drop(hosts.netemctl("partition n3 --for 6s").expect(0));
    let began = Instant::now();
    wait_until("no session is left", || NODES.iter().all(|node| hosts.processes(node).len() == 1));
    assert!(NODES.iter().all(|node| is_cut(&hosts, node)));
    wait_until("the partition is over", || !NODES.iter().any(|node| is_cut(&hosts, node)));
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());

    // What stays in force needs no process, and the next session goes on from the journal.
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

/// An operator who may do nothing else as root, on hosts of which two are behind the third.
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

/// The lines of README's sequence by ssh, from the inventory on, with three nodes in the place of nine.
fn of_readme() -> Vec<String> {
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
    let lines = of_readme();
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
    // As the comment has it.
    hosts.rewrite("cluster.toml", |text| text.replace("[nodes]", "interface = \"db0\"\n[nodes]"));
    drop(run(&format!("{export}\n{apply}")).expect(0));
    assert!(NODES.iter().all(|node| hosts.lab.exec(node, "tc qdisc show dev db0").contains("netem")));
    drop(run(&format!("{export}\nnetemctl partition n3\n{clear}")).expect(0));
    assert_eq!(hosts.lab.tc(), before);
    // The program that was pushed is all that stays.
    for node in NODES {
        let is_pushed = |file: &String| file.starts_with("/run/test/home/.cache/netemctl/netemctl-");
        wait_until("nothing but the pushed program is left", || {
            hosts.processes(node).is_empty() && hosts.left_on(node).iter().all(is_pushed)
        });
    }
}

/// Every end but the orderly one: the controller killed while it measures, the ssh connections cut, a keeper killed.
#[test]
fn whatever_is_killed_deadlines_hold_or_are_made_up_for() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    apply(&hosts);

    // The controller is killed in the middle of something; its ssh and what that started end by themselves.
    drop(hosts.netemctl("partition n2 --for 8s").expect(0));
    let mut verify = hosts.command(["verify", "--count", "500"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("there are sessions", || hosts.processes("n1").len() == 2);
    verify.kill().unwrap();
    drop(verify.wait());
    wait_until("no session is left", || NODES.iter().all(|node| hosts.processes(node).len() == 1));
    wait_until("no ssh is left", || hosts.ssh_processes().is_empty());
    wait_until("the partition is over", || !NODES.iter().any(|node| is_cut(&hosts, node)));

    // The management network of a node is gone, with a session on it that nobody ends.
    drop(hosts.netemctl("partition n2 --for 8s").expect(0));
    hosts.lab.exec("n2", "ip link set mgmt0 down");
    assert!(is_cut(&hosts, "n2"));
    let unreachable = hosts.netemctl("status").expect(6);
    assert!(unreachable.stdout.contains("n2: no agent at ssh://host-of-n2"), "{}", unreachable.stdout);
    wait_until("the partition is over", || !is_cut(&hosts, "n2"));
    hosts.lab.exec("n2", "ip link set mgmt0 up");

    // A keeper that is killed ends nothing; the next session starts one that makes up for it.
    drop(hosts.netemctl("partition n2 --for 3s").expect(0));
    let keeper = hosts.keepers("n2")[0];
    end(keeper);
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

/// Nothing is there at first, then it is copied, once; and what ssh has to complain about is one line for each node.
#[test]
fn what_stands_in_the_way_is_named_and_netemctl_is_copied_where_it_is_not() {
    let hosts = hosts(false);
    let said = |part: &str| {
        let ran = hosts.netemctl("status").expect(6);
        // Nodes that say the same share a line.
        let is_of_n1 = |line: &&str| line.starts_with("n1: ") || line.starts_with("n[1-3]: ");
        let lines: Vec<&str> = ran.stdout.lines().filter(is_of_n1).collect();
        assert!(lines.len() == 1 && lines[0].contains(part), "{}{}", ran.stdout, ran.stderr);
    };
    said("no netemctl on the host; install it there, or copy this one there with --push");

    let known = fs::read_to_string(hosts.path("known")).unwrap();
    hosts.rewrite("known", |_| String::new());
    said("its host key is not known; log in once with ssh host-of-n1");
    let stranger = fs::read_to_string(hosts.path("stranger.pub")).unwrap();
    hosts.rewrite("known", |_| format!("10.77.0.1 {stranger}10.77.0.2 {stranger}10.77.0.3 {stranger}"));
    said("ssh-keygen -R host-of-n1");
    hosts.rewrite("known", |_| known);
    let authorized = fs::read_to_string(hosts.path("authorized")).unwrap();
    hosts.rewrite("authorized", |_| stranger);
    said("ssh cannot log in (root@10.77.0.1: Permission denied (publickey)");
    hosts.rewrite("authorized", |_| authorized);

    // What is no program for that machine is not left there. One node is enough for the copying.
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

/// The guard of a host that has no config: the caller names what may be shaped, but not the way that it came by.
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

/// A host's own config has the last word: on which node it is, and on what may be shaped.
#[test]
fn a_host_that_has_a_config_is_what_that_says() {
    let hosts = hosts(true);
    let before = hosts.lab.tc();
    hosts.configure("n1", "node = 'n1'\ninterfaces = ['eth9']\nsocket = '/run/n1.sock'\n");
    hosts.configure("n2", "node = 'n7'\ninterfaces = ['db0']\nsocket = '/run/n2.sock'\n");
    let shown = hosts.netemctl("status").expect(6);
    assert!(shown.stdout.contains("this host is node n7 by its /etc/netemctl/agent.toml, not n2"), "{}", shown.stdout);
    hosts.configure("n2", "node = 'n2'\ninterfaces = ['db0']\nsocket = '/run/n2.sock'\n");
    let topology = shipped("uniform-3-rtt100.toml");
    let refused = hosts.run(["apply", &*topology.to_string_lossy()]).expect(5);
    assert!(refused.stderr.contains("n1: interface db0 is not one that this agent may touch"), "{}", refused.stderr);
    assert_eq!(hosts.lab.tc(), before);
    for node in NODES {
        hosts.wait_until_clean(node);
    }
}
