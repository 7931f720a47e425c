//! The memory that there is for this process: the machine's, or less where a container, a job or a service may take no more.

use sysinfo::{CGroupLimits, Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// Free for use.
    pub(crate) available: u64,
}

impl Memory {
    /// What there is now.
    pub(crate) fn now() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let this = Pid::from_u32(std::process::id());
        let nothing_more = ProcessRefreshKind::nothing();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[this]), false, nothing_more);
        let machine = Self { total: system.total_memory(), available: system.available_memory() };
        // Of a container the first tells, of jobs and services the second.
        let limits =
            [system.cgroup_limits(), system.process(this).and_then(Process::cgroup_limits)];
        limits.iter().flatten().fold(machine, Self::within)
    }

    fn within(self, limits: &CGroupLimits) -> Self {
        // Not `free_memory`: what is kept of files is used as well there, and is given up where it is needed.
        let free = limits.total_memory.saturating_sub(limits.rss);
        Self { total: self.total.min(limits.total_memory), available: self.available.min(free) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_where_it_is_below_what_the_machine_has() {
        let machine = Memory { total: 64, available: 40 };
        let limits = |total_memory, rss| CGroupLimits { total_memory, rss, ..Default::default() };
        assert_eq!(machine.within(&limits(16, 4)), Memory { total: 16, available: 12 });
        assert_eq!(machine.within(&limits(64, 4)), machine);
        assert_eq!(machine.within(&limits(16, 17)), Memory { total: 16, available: 0 });
    }
}
