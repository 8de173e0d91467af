//! The examples of docs/orchestrating.md do what they are shown for.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::lab::{Lab, Ran, shipped};

/// Runs one of the examples as its reader would, against this lab.
fn example<A: AsRef<std::ffi::OsStr>>(lab: &Lab, name: &str, arguments: impl IntoIterator<Item = A>) -> Ran {
    example_by(lab, Path::new(env!("CARGO_BIN_EXE_netemctl")), name, arguments)
}

/// The same with that program in the place of netemctl.
fn example_by<A: AsRef<std::ffi::OsStr>>(
    lab: &Lab,
    program: &Path,
    name: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Ran {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name);
    #[expect(clippy::disallowed_methods, reason = "the example is what is tested")]
    let mut python = Command::new("python3");
    python.arg(file).args(arguments).stdin(Stdio::null());
    python.env("NETEMCTL", program).env("NETEMCTL_LAB_DIR", lab.directory());
    // The machine is shared; what verify says of it is another test's matter.
    python.env("TOLERANCE", "50");
    python.output().unwrap().into()
}

#[test]
fn the_examples_in_python_do_what_they_are_shown_for_and_leave_nothing() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let result = lab.directory().join("result.json");
    let topology = shipped("uniform-3-rtt100.toml");
    let arguments = [topology.as_os_str(), "n3".as_ref(), result.as_os_str()];
    let ran = example(&lab, "through_the_cli.py", arguments).expect(0);
    assert!(ran.stderr.contains("netemctl INFO partition n3 --name experiment: exit code 0"), "{}", ran.stderr);
    let runs: Value = serde_json::from_slice(&std::fs::read(&result).unwrap()).unwrap();
    let phase = |number: usize, key: &str| runs[number]["surroundings"][key].clone();
    assert_eq!(runs.as_array().unwrap().len(), 3);
    assert_eq!(phase(0, "topology"), "uniform-3-rtt100");
    assert_eq!(phase(1, "partitions")[0]["name"], "experiment");
    assert_eq!(runs[1]["measured"]["n1-n3"], serde_json::json!([null, null]), "n3 is cut off on both families");
    assert_ne!(phase(0, "stamp"), phase(1, "stamp"));
    assert!(runs[1]["at"]["onset"]["spread_us"].is_f64(), "{}", runs[1]["at"]);

    // A phase that does not verify loses none before it, and the exit code is that of verify.
    let spoilt = lab.directory().join("spoilt");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         *heal*) '{0}' \"$@\"; code=$?; '{0}' lab exec n1 -- tc qdisc del dev db0 root; exit $code;;\n\
         esac\nexec '{0}' \"$@\"\n",
        env!("CARGO_BIN_EXE_netemctl")
    );
    std::fs::write(&spoilt, script).unwrap();
    std::fs::set_permissions(&spoilt, std::fs::Permissions::from_mode(0o755)).unwrap();
    let partial = lab.directory().join("partial.json");
    let arguments = [topology.as_os_str(), "n3".as_ref(), partial.as_os_str()];
    let ran = example_by(&lab, &spoilt, "through_the_cli.py", arguments).expect(4);
    assert!(ran.stderr.contains("4 pairs are not as wanted; the worst: n"), "{}", ran.stderr);
    let runs: Value = serde_json::from_slice(&std::fs::read(&partial).unwrap()).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 2);

    // A file that is wrong is not tried again, and the exit code is handed on.
    let wrong = lab.topology("name = 'wrong'\n");
    let ran = example(&lab, "through_the_cli.py", [wrong.as_os_str(), "n3".as_ref(), result.as_os_str()]).expect(3);
    assert!(!ran.stderr.contains("trying again"), "{}", ran.stderr);

    let socket =
        |node: &str| format!("{node}=unix:{}", lab.directory().join("nodes").join(node).join("agent.sock").display());
    // On a lab on which nothing was ever in force, and under a topology.
    let fresh = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let of_fresh = ["n1", "n2", "n3"]
        .map(|node| format!("{node}=unix:{}", fresh.directory().join("nodes").join(node).join("agent.sock").display()));
    let ran = example(&fresh, "through_the_api.py", ["n3".to_owned()].into_iter().chain(of_fresh)).expect(0);
    assert_eq!(ran.json()["n3"].as_array().unwrap().len(), 12);
    assert_eq!(fresh.netemctl("--json status").expect(0).json()["partitions"], serde_json::json!([]));
    drop(fresh);

    lab.apply(&topology);
    let before = lab.tc();
    let arguments = ["n3".to_owned(), socket("n1"), socket("n2"), socket("n3")];
    let ran = example(&lab, "through_the_api.py", arguments).expect(0);
    let cut = ran.json();
    for (node, addresses) in [("n1", 6), ("n2", 6), ("n3", 12)] {
        assert_eq!(cut[node].as_array().unwrap().len(), addresses, "both directions; IPv4, IPv6, link-local: {cut}");
    }
    assert_eq!(lab.netemctl("--json status").expect(0).json()["partitions"], serde_json::json!([]));
    assert_eq!(lab.tc().lines().count(), before.lines().count(), "what was cut is whole again");
}
