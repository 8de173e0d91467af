//! Runs the example programs of docs/orchestrating.md and checks their results.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::lab::{Lab, Ran, shipped};

/// Runs an example against this lab, as a reader of the document would.
fn example<A: AsRef<std::ffi::OsStr>>(lab: &Lab, name: &str, arguments: impl IntoIterator<Item = A>) -> Ran {
    example_by(lab, Path::new(env!("CARGO_BIN_EXE_netemctl")), name, arguments)
}

/// Runs an example with `program` in place of netemctl.
fn example_by<A: AsRef<std::ffi::OsStr>>(
    lab: &Lab,
    program: &Path,
    name: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Ran {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name);
    #[expect(clippy::disallowed_methods, reason = "the test runs the example")]
    let mut python = Command::new("python3");
    python.arg(file).args(arguments).stdin(Stdio::null());
    python.env("NETEMCTL", program).env("NETEMCTL_LAB_DIR", lab.directory());
    // The tolerance is wide, because the machine is shared.
    python.env("TOLERANCE", "50");
    python.output().unwrap().into()
}

#[test]
fn the_python_examples_give_the_documented_results_and_leave_nothing() {
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

    // The wrapper deletes the root qdisc of n1 after `heal`, so the `verify` of the third phase fails. The example keeps
    // the results of the first two phases and exits with the code of `verify`.
    let wrapper = lab.directory().join("wrapper");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         *heal*) '{0}' \"$@\"; code=$?; '{0}' lab exec n1 -- tc qdisc del dev db0 root; exit $code;;\n\
         esac\nexec '{0}' \"$@\"\n",
        env!("CARGO_BIN_EXE_netemctl")
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let partial = lab.directory().join("partial.json");
    let arguments = [topology.as_os_str(), "n3".as_ref(), partial.as_os_str()];
    let ran = example_by(&lab, &wrapper, "through_the_cli.py", arguments).expect(4);
    assert!(ran.stderr.contains("4 pairs are not as wanted; the worst: n"), "{}", ran.stderr);
    let runs: Value = serde_json::from_slice(&std::fs::read(&partial).unwrap()).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 2);

    // The example does not retry an invalid file, and exits with the code of netemctl.
    let wrong = lab.topology("name = 'wrong'\n");
    let ran = example(&lab, "through_the_cli.py", [wrong.as_os_str(), "n3".as_ref(), result.as_os_str()]).expect(3);
    assert!(!ran.stderr.contains("trying again"), "{}", ran.stderr);

    let socket =
        |node: &str| format!("{node}=unix:{}", lab.directory().join("nodes").join(node).join("agent.sock").display());
    // The second example runs on a new lab without a topology, and then on a lab with one.
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
    assert_eq!(lab.tc().lines().count(), before.lines().count(), "the example heals its cut");
}
