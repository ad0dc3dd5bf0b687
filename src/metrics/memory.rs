//! Memory of the machine and of the process: what may be used, and what is used.
//!
//! Linux tells both in files; every function takes the root below which they lie, `/` outside tests.
//! Where there are none, the answer is that nothing is known.

use std::path::Path;

/// From here on, a limit of cgroup v1 stands for none (it writes the greatest number of whole pages).
const V1_UNLIMITED_BYTES: u64 = 1 << 62;

/// The memory that a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes.
    pub bytes: u64,
    /// Who says so.
    pub origin: MemoryOrigin,
}

/// Where a memory limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrigin {
    /// The machine has no more.
    Machine,
    /// The process's cgroup or one above it, as containers and systemd units have.
    Cgroup,
}

/// The least of the machine's memory and the limits of the process's cgroups, v1 and v2; `None` if the
/// system tells neither.
#[must_use]
pub fn memory_limit(root: &Path) -> Option<MemoryLimit> {
    let machine = proc_kibibytes(&root.join("proc/meminfo"), "MemTotal:")
        .map(|bytes| MemoryLimit { bytes, origin: MemoryOrigin::Machine });
    let cgroup =
        cgroup_limit(root).map(|bytes| MemoryLimit { bytes, origin: MemoryOrigin::Cgroup });
    machine.into_iter().chain(cgroup).min_by_key(|limit| limit.bytes)
}

/// The memory of this process that is in RAM; `None` if the system doesn't tell.
#[must_use]
pub fn resident_bytes(root: &Path) -> Option<u64> {
    proc_kibibytes(&root.join("proc/self/status"), "VmRSS:")
}

/// The number after `name` in a file of lines like `MemTotal: 24576 kB`, as bytes.
fn proc_kibibytes(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of the process's cgroups and of those above them.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let memberships = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    memberships.lines().filter_map(|line| membership_limit(root, line)).min()
}

/// The least limit along one line of `/proc/self/cgroup`: `0::/path` is version 2,
/// `4:memory:/path` version 1.
fn membership_limit(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (hierarchy, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    let top = root.join(hierarchy);
    // In a container without a cgroup namespace, the path is the host's and what is mounted is the
    // container's own group: then only the top has a file. A path that climbs is that of a process
    // outside its namespace's root, of which nothing more can be seen.
    let is_visible = !path.split('/').any(|name| name == "..");
    let own = if is_visible { top.join(path.trim_start_matches('/')) } else { top.clone() };
    let groups = own.ancestors().take_while(|group| group.starts_with(&top));
    groups.filter_map(|group| limit_in(&group.join(file))).min()
}

/// The limit that a file states; `max` and the like are none.
fn limit_in(file: &Path) -> Option<u64> {
    let bytes: u64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < V1_UNLIMITED_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       24576 kB\nMemFree:         1024 kB\n");
    const MACHINE: Option<(u64, MemoryOrigin)> = Some((24 << 20, MemoryOrigin::Machine));

    fn check(files: &[(&str, &str)], expected: Option<(u64, MemoryOrigin)>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = memory_limit(root.path()).map(|limit| (limit.bytes, limit.origin));
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn without_cgroups_the_machine_is_the_limit() {
        check(&[], None);
        check(&[MEMINFO], MACHINE);
        check(&[("proc/meminfo", "MemTotal: many kB\n")], None);
        check(&[MEMINFO, ("proc/self/cgroup", "0::/\n")], MACHINE);
        check(&[MEMINFO, ("proc/self/cgroup", "nonsense\n:\n0::\n")], MACHINE);
    }

    #[test]
    fn version_2_takes_the_least_on_the_way_up() {
        let own = ("proc/self/cgroup", "0::/system.slice/flow.service\n");
        let group = |text| ("sys/fs/cgroup/system.slice/flow.service/memory.max", text);
        let slice = |text| ("sys/fs/cgroup/system.slice/memory.max", text);
        let least = |bytes| Some((bytes, MemoryOrigin::Cgroup));
        check(&[MEMINFO, own, group("max\n"), slice("max\n")], MACHINE);
        check(&[MEMINFO, own, group("1048576\n"), slice("max\n")], least(1 << 20));
        check(&[MEMINFO, own, group("1048576\n"), slice("524288\n")], least(1 << 19));
        check(&[MEMINFO, own, group("1099511627776\n")], MACHINE);
        // The container's own group is what is mounted.
        check(&[MEMINFO, own, ("sys/fs/cgroup/memory.max", "4096\n")], least(4096));
        // A path that climbs out of the hierarchy finds nothing there.
        let climbing = ("proc/self/cgroup", "0::/../..\n");
        check(&[MEMINFO, climbing, ("sys/memory.max", "1\n")], MACHINE);
    }

    #[test]
    fn version_1_writes_a_great_number_for_none() {
        let own = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/x\n1:name=systemd:/\n");
        let group = |text| ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", text);
        check(&[MEMINFO, own, group("9223372036854771712\n")], MACHINE);
        check(&[MEMINFO, own, group("65536\n")], Some((65536, MemoryOrigin::Cgroup)));
        let mounted = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
        check(&[MEMINFO, own, mounted], Some((8192, MemoryOrigin::Cgroup)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_both() {
        let root = Path::new("/");
        let limit = memory_limit(root).unwrap();
        let resident = resident_bytes(root).unwrap();
        assert!(resident > 0 && resident <= limit.bytes, "{resident} of {limit:?}");
    }
}
