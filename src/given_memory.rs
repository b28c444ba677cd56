//! How much memory this process may use: what the machine has, or what its control group is given, whichever is less.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes; `None` where the system does not say.
pub fn given() -> Option<usize> {
    given_below(Path::new("/"))
}

fn given_below(root: &Path) -> Option<usize> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total(&text));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        // Without a limit version 2 says "max", and version 1 a number greater than any memory.
        fs::read_to_string(root.join(file)).ok()?.trim().parse().ok()
    });
    limits.chain(machine).min()
}

/// `MemTotal` of /proc/meminfo.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files that limit the groups which /proc/self/cgroup names, and the groups around them. In a container the outermost may be the
/// only one there is.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (mounted, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|around| Path::new(mounted).join(around).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_least_of_machine_group_and_groups_around_it_counts() {
        let machine = root(&[MACHINE]);
        assert_eq!(given_below(machine.path()), Some(16 << 20));

        let second = root(&[
            MACHINE,
            ("proc/self/cgroup", "0::/system.slice/shangmq.service\n"),
            ("sys/fs/cgroup/system.slice/shangmq.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "8388608\n"),
        ]);
        assert_eq!(given_below(second.path()), Some(8 << 20));

        let first = root(&[
            MACHINE,
            ("proc/self/cgroup", "4:cpu:/a\n5:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n"),
            ("sys/fs/cgroup/cpu/a/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(given_below(first.path()), Some(4 << 20));

        let unlimited = root(&[
            MACHINE,
            ("proc/self/cgroup", "5:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(given_below(unlimited.path()), Some(16 << 20));
    }

    #[test]
    fn a_system_that_does_not_say_gives_nothing_to_go_by() {
        assert_eq!(given_below(root(&[("proc/meminfo", "nonsense\n")]).path()), None);
        assert_eq!(given_below(root(&[]).path()), None);
    }
}
