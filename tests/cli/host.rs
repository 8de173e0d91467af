//! A lab needs no root and does not change the host's network.

use std::{fs, os::unix::fs::chown};

use nix::unistd::getuid;

use super::harness::{Answer, Sandbox, binary};

/// The user id of `nobody`.
const ORDINARY_USER: u32 = 65534;

/// A script that starts, uses and stops a lab. The shell ends at the first command that fails.
const LIFE: &str = "
    $NETEMCTL lab up uniform-3-rtt0.toml
    trap '$NETEMCTL lab down' EXIT
    $NETEMCTL lab status
    $NETEMCTL lab exec n1 -- getent ahostsv4 n3 | cut -d ' ' -f 1 | head -n 1
    $NETEMCTL lab exec n1 -- sh -c 'exit 42' || echo exit code $?
    $NETEMCTL status";

/// Runs a script as an ordinary user: as `nobody` if the tests run as root, otherwise as the current user.
fn as_ordinary_user(sandbox: &Sandbox, script: &str) -> Answer {
    if !getuid().is_root() {
        return sandbox.run_other("sh", ["-ec", script]);
    }
    // The binary is copied, because `nobody` may not be able to read the build's folder. `cp` makes the copy. If this
    // process did, a child of another test could inherit the open file, and running the copy would fail (ETXTBSY).
    let _copied = sandbox.run_other("cp", [binary(), "netemctl"]).ended(0);
    let files = fs::read_dir(sandbox.path()).expect("the sandbox can be read").flatten().map(|file| file.path());
    for path in files.chain([sandbox.path().to_owned()]) {
        chown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("root can give files away");
    }
    let script = format!("NETEMCTL=./netemctl\n{script}");
    sandbox.run_other(
        "setpriv",
        ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "sh", "-ec", &script],
    )
}

#[test]
fn an_ordinary_user_has_a_lab_where_user_namespaces_are_allowed() {
    let sandbox = Sandbox::new();
    let _file = sandbox.topology("uniform-3-rtt0");
    if as_ordinary_user(&sandbox, "unshare -rnm true").code() == 0 {
        insta::assert_snapshot!(as_ordinary_user(&sandbox, LIFE), @"
        --- stdout
        lab uniform-3-rtt0 is up: 3 nodes, each with an agent, in [TIME] s
        lab uniform-3-rtt0

        NODE  DATABASE (db0)     MANAGEMENT (mgmt0)  AGENT
        n1    10.78.0.1 fd78::1  10.77.0.1 fd77::1   up
        n2    10.78.0.2 fd78::2  10.77.0.2 fd77::2   up
        n3    10.78.0.3 fd78::3  10.77.0.3 fd77::3   up
        10.78.0.3
        exit code 42
        nothing is in force on 3 nodes

        NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
        n[1-3]  db0        -               -              ok
        the lab is down; its directory is removed
        --- stderr
        --- exit status: 0
        ");
    } else {
        let denied = as_ordinary_user(&sandbox, "$NETEMCTL lab up uniform-3-rtt0.toml").ended(8);
        assert!(denied.stderr.contains("user namespace"), "{denied}");
    }
    sandbox.wait_until_empty();
}

#[test]
fn where_user_namespaces_are_not_allowed_the_lab_says_so() {
    let sandbox = Sandbox::new();
    let _file = sandbox.topology("uniform-3-rtt0");
    // The limit allows one more user namespace below this one, and `unshare -U` uses it.
    let script = "
        echo 1 >/proc/sys/user/max_user_namespaces
        exec unshare -U --map-user=1000 --map-group=1000 \"$NETEMCTL\" --json lab up uniform-3-rtt0.toml";
    let denied = sandbox.run_other("unshare", ["-r", "sh", "-ec", script]);
    insta::assert_snapshot!(denied, @r#"
    --- stdout
    {
      "exit_code": 8,
      "error": {
        "message": "the lab did not come up: the kernel allows this user no user namespace: No space left on device (os error 28)",
        "hints": [
          "run as root, or raise the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone"
        ]
      }
    }
    --- stderr
    error: the lab did not come up: the kernel allows this user no user namespace: No space left on device (os error 28)
    hint: run as root, or raise the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone
    --- exit status: 8
    "#);
    sandbox.wait_until_empty();
    let _down = sandbox.run(["lab", "down"]).ended(0);
    assert!(!sandbox.lab_directory().exists(), "lab down removes the rest of the failed attempt");
}

#[test]
fn a_lab_adds_nothing_to_the_network_of_its_host() {
    let sandbox = Sandbox::new();
    let _file = sandbox.topology("uniform-3-rtt0");
    // The lab's host is a new network namespace, because other programs may change the real host's network.
    let script = "
        look() { tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/route /proc/net/if_inet6 /proc/net/psched; }
        look >before
        \"$NETEMCTL\" lab up uniform-3-rtt0.toml
        trap '\"$NETEMCTL\" lab down' EXIT
        look >during
        cmp before during
        \"$NETEMCTL\" lab down
        look >after
        cmp before after
        echo the same";
    let flags = if getuid().is_root() { "-n" } else { "-rn" };
    let looked = sandbox.run_other("unshare", [flags, "sh", "-ec", script]).ended(0);
    assert!(looked.stdout.contains("the same"), "{looked}");
}
