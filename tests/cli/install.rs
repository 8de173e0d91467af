//! `scripts/install` and the installed files. The tests install below a folder in the sandbox.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use netemctl::cli::Exit;

use super::harness::{Answer, Sandbox};

/// Runs `scripts/install` with DESTDIR set to the folder `root` of the sandbox.
fn install(sandbox: &Sandbox, arguments: &str) -> Answer {
    let script = shipped("scripts/install");
    // A small file replaces the large binary.
    sandbox.write("program", "#!/bin/sh\n");
    let line = format!("DESTDIR=$PWD/root '{script}' --binary program {arguments}");
    sandbox.run_other("sh", ["-c", &line])
}

fn shipped(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file).display().to_string()
}

/// The files below a folder with their modes.
fn tree(sandbox: &Sandbox, folder: &str) -> String {
    let list = format!("cd {folder} && find . -type f -printf '%m %P\\n' | sort -k 2");
    sandbox.run_other("sh", ["-c", &list]).ended(0).stdout
}

#[test]
fn everything_is_installed_and_taken_away_again() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(install(&sandbox, ""), @"
    --- stdout
    /usr/local/bin/netemctl is installed. Next:
      1. edit /etc/netemctl/agent.toml: the node's name, and the interfaces that may be shaped
      2. systemctl enable --now netemctl-agent.service
      3. systemctl status netemctl-agent.service
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(tree(&sandbox, "root"), @"
    644 etc/netemctl/agent.toml
    755 usr/local/bin/netemctl
    644 usr/local/lib/modules-load.d/netemctl.conf
    644 usr/local/lib/systemd/system/netemctl-agent.service
    644 usr/local/lib/sysusers.d/netemctl.conf
    644 usr/local/share/doc/netemctl/agent.toml
    ");
    let _again = install(&sandbox, "").ended(0);
    let _uninstalled = install(&sandbox, "--uninstall").ended(0);
    assert_eq!(tree(&sandbox, "root"), "");
}

#[test]
fn a_prefix_where_systemd_does_not_look_has_its_unit_in_etc() {
    let sandbox = Sandbox::new();
    let _installed = install(&sandbox, "--prefix /opt/netemctl").ended(0);
    insta::assert_snapshot!(tree(&sandbox, "root"), @"
    644 etc/modules-load.d/netemctl.conf
    644 etc/netemctl/agent.toml
    644 etc/systemd/system/netemctl-agent.service
    644 etc/sysusers.d/netemctl.conf
    755 opt/netemctl/bin/netemctl
    644 opt/netemctl/share/doc/netemctl/agent.toml
    ");
    let unit = fs::read_to_string(sandbox.path().join("root/etc/systemd/system/netemctl-agent.service"));
    let unit = unit.expect("the unit is there");
    assert!(unit.contains("ExecStart=/opt/netemctl/bin/netemctl agent") && !unit.contains("/usr/local"), "{unit}");
    let _uninstalled = install(&sandbox, "--prefix /opt/netemctl --uninstall").ended(0);
    assert_eq!(tree(&sandbox, "root"), "");
}

#[test]
fn a_config_of_the_operators_own_is_neither_overwritten_nor_taken_away() {
    let sandbox = Sandbox::new();
    let _installed = install(&sandbox, "").ended(0);
    let config = "root/etc/netemctl/agent.toml";
    sandbox.write(config, "node = 'n7'\n");
    let again = install(&sandbox, "").ended(0);
    assert!(again.stdout.contains("look at /usr/local/share/doc/netemctl/agent.toml"), "{again}");
    let uninstalled = install(&sandbox, "--uninstall").ended(0);
    assert!(uninstalled.stdout.contains("kept: [DIR]/root/etc/netemctl"), "{uninstalled}");
    assert_eq!(tree(&sandbox, "root"), "644 etc/netemctl/agent.toml\n");
    assert_eq!(fs::read_to_string(sandbox.path().join(config)).ok().as_deref(), Some("node = 'n7'\n"));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::new();
    let dry = install(&sandbox, "--dry-run").ended(0);
    assert!(dry.stdout.contains("mv -f [DIR]/root/usr/local/bin/netemctl.new"), "{dry}");
    assert!(!sandbox.path().join("root").exists());
    let _installed = install(&sandbox, "").ended(0);
    let before = tree(&sandbox, "root");
    let _dry = install(&sandbox, "--uninstall --dry-run").ended(0);
    assert_eq!(tree(&sandbox, "root"), before);
}

/// Dry runs without DESTDIR, which change nothing. A script replaces `tc`.
#[test]
fn nothing_is_uninstalled_while_something_is_in_force() {
    let sandbox = Sandbox::new();
    let script = shipped("scripts/install");
    let uninstall = |tc: &str, arguments: &str| {
        sandbox.write("tc", format!("#!/bin/sh\n{tc}\n"));
        fs::set_permissions(sandbox.path().join("tc"), fs::Permissions::from_mode(0o755)).expect("an own file");
        let line = format!("PATH=$PWD:$PATH '{script}' --uninstall --dry-run {arguments}");
        sandbox.run_other("sh", ["-c", &line])
    };
    let shaped = "echo 'qdisc mq 0: dev eno1 root'\necho 'qdisc htb 4e7e: dev eno2 root refcnt 2 r2q 10'";
    let refused = uninstall(shaped, "").ended(1);
    assert_eq!(refused.stderr, "install: netemctl shapes eno2; run netemctl clear first, or use --force\n");
    assert_eq!(refused.stdout, "");
    assert_eq!(uninstall("exit 3", "").ended(3).stdout, "", "a failure of tc is not taken for an unshaped host");
    let removal = "rm -f /usr/local/bin/netemctl";
    assert!(uninstall("echo 'qdisc htb 1: dev eno2 root'", "").ended(0).stdout.contains(removal));
    let forced = uninstall(shaped, "--force").ended(0);
    assert!(forced.stdout.contains(removal) && !forced.stdout.contains("/var/lib/netemctl"), "{forced}");
}

/// The values of each key of the unit. A value must not be empty, because systemd would reset the earlier values.
fn unit() -> BTreeMap<String, Vec<String>> {
    let unit = fs::read_to_string(shipped("packaging/systemd/netemctl-agent.service")).expect("the unit is shipped");
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not a key: {line}"));
        assert!(!value.is_empty() && value.trim() == value, "{line}");
        keys.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    keys
}

#[test]
fn the_unit_has_the_rights_of_the_agent_and_no_others() {
    let unit = unit();
    let is = |key: &str, value: &str| assert_eq!(unit.get(key), Some(&vec![value.to_owned()]), "{key}");
    is("AmbientCapabilities", "CAP_NET_ADMIN CAP_NET_RAW");
    is("CapabilityBoundingSet", "CAP_NET_ADMIN CAP_NET_RAW");
    is("User", "netemctl");
    is("NoNewPrivileges", "yes");
    // Dry runs need `user net`. Netlink, measurements and sockets need the address families.
    is("RestrictNamespaces", "user net");
    is("RestrictAddressFamilies", "AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET");
    for key in ["ProtectHome", "PrivateTmp", "ProtectKernelTunables", "ProtectControlGroups", "MemoryDenyWriteExecute"]
    {
        is(key, "yes");
    }
    is("ProtectSystem", "strict");
    // PrivateUsers would remove the rights on the host's network. ProcSubset would hide the file
    // /proc/sys/kernel/random/boot_id.
    assert!(!unit.contains_key("PrivateUsers") && !unit.contains_key("ProcSubset"));
    let users = fs::read_to_string(shipped("packaging/sysusers.d/netemctl.conf")).expect("the user is shipped");
    assert!(users.lines().any(|line| line.starts_with("u     netemctl ")), "{users}");
}

#[test]
fn the_unit_restarts_the_agent_unless_the_failure_is_permanent() {
    let unit = unit();
    let permanent = [Exit::Usage, Exit::File, Exit::Permission].map(|exit| exit.code().to_string()).join(" ");
    assert_eq!(unit["RestartPreventExitStatus"], [permanent]);
    assert_eq!(unit["Restart"], ["on-failure"]);
    assert_eq!(unit["StartLimitIntervalSec"], ["0"]);
    assert_eq!(unit["Type"], ["notify"]);
    assert_eq!(unit["WatchdogSec"], ["60s"]);
}

/// The shipped config uses the folders that the unit creates.
#[test]
fn the_shipped_config_fits_the_unit() {
    let (unit, config) = (unit(), fs::read_to_string(shipped("packaging/agent.toml")).expect("the config is shipped"));
    for (key, path) in [("RuntimeDirectory", "/run/netemctl/"), ("StateDirectory", "/var/lib/netemctl/")] {
        assert_eq!(unit[key], ["netemctl"]);
        assert!(config.contains(path), "{path}");
    }
    assert_eq!(unit["ExecStart"], ["/usr/local/bin/netemctl agent --config /etc/netemctl/agent.toml"]);
}
