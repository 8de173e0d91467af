//! Judges the kernel's support for netemctl, and the rights of the agent.

use super::{Check, Fact, Facts, Finding, KernelFacts, ModuleState, Trial};

/// The modules of the objects that netemctl installs; the last two only for `--mode reject`.
pub const MODULES: [&str; 7] =
    ["sch_htb", "sch_netem", "sch_ingress", "cls_flower", "act_gact", "act_sample", "psample"];

/// The modules for delays and cuts.
const FOR_SHAPING: usize = 5;

/// The packages that have `sch_netem`, by `ID` or `ID_LIKE` of os-release(5).
///
/// Ubuntu, Fedora and RHEL have `sch_netem` outside the package of the kernel, so images often lack it. Debian's kernels,
/// also those for clouds, have all modules in their own package.
const PACKAGES: [(&str, &str); 7] = [
    ("ubuntu", "apt install linux-modules-extra-$(uname -r)"),
    ("debian", "apt install linux-image-$(dpkg --print-architecture), then reboot"),
    ("fedora", DNF),
    ("rhel", DNF),
    ("centos", DNF),
    ("suse", "zypper install kernel-default, then reboot"),
    ("arch", "pacman -S linux, then reboot"),
];

const DNF: &str = "dnf install kernel-modules-extra-$(uname -r)";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut findings = vec![shaping(kernel), rejecting(kernel), capabilities(facts)];
    findings.push(match [&kernel.shaping, &kernel.rejecting].into_iter().find_map(denied) {
        Some(why) => namespaces(facts, why),
        None => Check::Namespaces.ok("a scratch network namespace for dry runs can be made"),
    });
    findings
}

fn denied(trial: &Trial) -> Option<&str> {
    match trial {
        Trial::Denied(why) => Some(why),
        _ => None,
    }
}

fn shaping(kernel: &KernelFacts) -> Finding {
    let release = &kernel.release;
    let effect = "no delay, loss, rate or partition can be applied";
    match &kernel.shaping {
        Trial::Works => Check::Shaping.ok(format!("kernel {release} can shape")),
        Trial::Unsupported(why) => {
            let missing = missing(kernel, &MODULES[..FOR_SHAPING]);
            let text =
                if missing.is_empty() { why.clone() } else { format!("kernel {release} lacks {}", missing.join(", ")) };
            Check::Shaping.problem(text).effect(effect).remedy(package(kernel, &MODULES[..FOR_SHAPING]))
        }
        // The capabilities or the namespaces have their own finding.
        Trial::Denied(why) => Check::Shaping.not_known("whether this kernel can shape", why),
        Trial::Failed(why) => Check::Shaping.problem(why.clone()).effect(effect),
    }
}

fn rejecting(kernel: &KernelFacts) -> Finding {
    match &kernel.rejecting {
        Trial::Works => Check::Rejecting.ok("this kernel can reject packets"),
        Trial::Unsupported(_) => Check::Rejecting
            .note("this kernel has no act_sample or psample")
            .effect("partition --mode reject is refused; all other partitions work")
            .remedy(package(kernel, &MODULES[FOR_SHAPING..])),
        Trial::Denied(why) | Trial::Failed(why) => {
            Check::Rejecting.not_known("whether this kernel can reject packets", why)
        }
    }
}

/// The modules that the kernel's folder of modules lacks.
fn missing<'a>(kernel: &'a KernelFacts, needed: &[&str]) -> Vec<&'a str> {
    let absent = kernel.modules.iter().filter(|(_, state)| **state == Fact::Known(ModuleState::Absent));
    absent.map(|(module, _)| module.as_str()).filter(|module| needed.contains(module)).collect()
}

/// The command that installs the modules.
fn package(kernel: &KernelFacts, needed: &[&str]) -> String {
    let names = kernel.distribution.known().map(Vec::as_slice).unwrap_or_default();
    let known = names.iter().find_map(|name| {
        PACKAGES.iter().find(|(id, _)| name == id || name.starts_with(&format!("{id}-"))).map(|(_, command)| *command)
    });
    let is_on_disk = |module: &&str| kernel.modules.get(*module) == Some(&Fact::Known(ModuleState::OnDisk));
    let on_disk: Vec<&str> = needed.iter().copied().filter(is_on_disk).collect();
    match known {
        // All missing modules exist. A container or a setting of modprobe keeps the kernel from loading them.
        _ if missing(kernel, needed).is_empty() && !on_disk.is_empty() => format!("modprobe -a {}", on_disk.join(" ")),
        Some(command) => format!("{command}; for a lab, scripts/with-netem boots a kernel that has them"),
        None => "install a kernel with CONFIG_NET_SCH_NETEM, CONFIG_NET_SCH_HTB, CONFIG_NET_CLS_FLOWER, \
                 CONFIG_NET_ACT_GACT, CONFIG_NET_SCH_INGRESS"
            .to_owned(),
    }
}

fn capabilities(facts: &Facts) -> Finding {
    Check::Capabilities.of("the capabilities of the process", &facts.rights.missing_capabilities, |missing| {
        if missing.is_empty() {
            return Check::Capabilities.ok("all needed capabilities are there");
        }
        let names: Vec<&str> = missing.iter().map(String::as_str).collect();
        Check::Capabilities
            .problem(format!("this process lacks {}", names.join(", ")))
            .effect("the agent neither shapes nor measures")
            .remedy("run it as root, or grant them: systemctl edit netemctl-agent, AmbientCapabilities=")
    })
}

/// Judges a process that may not make a namespace. A namespace needs `CAP_SYS_ADMIN`, or a user namespace.
fn namespaces(facts: &Facts, why: &str) -> Finding {
    let limits = &facts.rights.user_namespaces;
    // The value that forbids user namespaces, and the value that allows them.
    let settings = [
        ("user.max_user_namespaces", 0, "10000"),
        ("kernel.unprivileged_userns_clone", 0, "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, "0"),
    ];
    let forbids = |name: &str, value| limits.get(name) == Some(&Fact::Known(value));
    let forbidding: Vec<_> = settings.into_iter().filter(|(name, value, _)| forbids(name, *value)).collect();
    let finding = Check::Namespaces.problem(match forbidding.as_slice() {
        [] => format!("no scratch network namespace can be made: {why}"),
        settings => {
            let set: Vec<_> = settings.iter().map(|(name, value, _)| format!("{name} is {value}")).collect();
            format!("user namespaces are forbidden: {}", set.join(", "))
        }
    });
    let commands: Vec<_> = forbidding.iter().map(|(name, _, value)| format!("sysctl -w {name}={value}")).collect();
    let finding = finding.effect("agents make no dry run, so they refuse changes; ordinary users cannot run lab up");
    finding.remedy(match commands.as_slice() {
        [] => "run it as root, or give the agent CAP_SYS_ADMIN".to_owned(),
        commands => format!("{}; or run it as root", commands.join(" && ")),
    })
}
