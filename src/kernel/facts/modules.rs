//! Finds out which kernel modules exist, and the distribution whose package has them.

use std::{collections::BTreeMap, io, path::Path};

use super::{assignments, read};
use crate::{
    doctor::{Fact, MODULES, ModuleState},
    kernel::release,
};

/// `ID` and `ID_LIKE` of os-release(5).
pub fn distribution() -> Fact<Vec<String>> {
    let text = read("/etc/os-release").or_else(|_| read("/usr/lib/os-release"));
    text.map(|text| names(&text)).into()
}

fn names(text: &str) -> Vec<String> {
    let values = assignments(text);
    let words = ["ID", "ID_LIKE"].into_iter().filter_map(|key| values.get(key));
    words.flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
}

/// The state of each module that netemctl needs.
pub fn modules() -> BTreeMap<String, Fact<ModuleState>> {
    let folder = format!("/lib/modules/{}", release());
    let files = read(&format!("{folder}/modules.builtin"))
        .and_then(|builtin| Ok((builtin, read(&format!("{folder}/modules.dep"))?)));
    let state = |module: &str| -> Fact<ModuleState> {
        if Path::new("/sys/module").join(module).exists() {
            return Fact::Known(ModuleState::Loaded);
        }
        let found = files.as_ref().map(|(builtin, dependencies)| state_of(module, builtin, dependencies));
        found.map_err(|error| io::Error::new(error.kind(), error.to_string())).into()
    };
    MODULES.into_iter().map(|module| (module.to_owned(), state(module))).collect()
}

/// The state of a module in the lists of a kernel's modules. `modules.dep` has the compressed files, too.
fn state_of(module: &str, builtin: &str, dependencies: &str) -> ModuleState {
    let is_in = |list: &str| {
        list.lines()
            .filter_map(|line| line.split(':').next()?.rsplit('/').next())
            .any(|file| file.split_once(".ko").is_some_and(|(name, _)| name.replace('-', "_") == module))
    };
    match (is_in(builtin), is_in(dependencies)) {
        (true, _) => ModuleState::Loaded,
        (false, true) => ModuleState::OnDisk,
        (false, false) => ModuleState::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_built_in_or_on_disk_or_absent() {
        let builtin = "kernel/net/sched/sch_htb.ko\n";
        let dependencies = "kernel/net/sched/sch_netem.ko.xz:\nkernel/net/sched/cls_flower.ko: kernel/a.ko\n";
        let state = |module| state_of(module, builtin, dependencies);
        assert_eq!(state("sch_htb"), ModuleState::Loaded);
        assert_eq!(state("sch_netem"), ModuleState::OnDisk);
        assert_eq!(state("cls_flower"), ModuleState::OnDisk);
        assert_eq!(state("sch_ingress"), ModuleState::Absent);
        assert_eq!(state("a"), ModuleState::Absent);
    }

    #[test]
    fn a_distribution_has_its_own_name_and_those_of_its_relatives() {
        let text = "NAME=\"Rocky Linux\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n";
        assert_eq!(names(text), ["rocky", "rhel", "centos", "fedora"]);
        assert_eq!(names("ID=debian\n"), ["debian"]);
    }
}
