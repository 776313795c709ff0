//! On what a figure was measured, so that two figures are not compared that can not be.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    /// The CPU as it calls itself.
    pub(crate) cpu: String,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// What chooses the clock rate of the CPUs, where the kernel does; virtual machines mostly do not know.
    pub(crate) governor: Option<String>,
    /// Whether this program was built with optimizations.
    pub(crate) release_build: bool,
}

impl Host {
    /// What procfs and sysfs say of this machine.
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok();
        Self {
            cpu: model_name(&cpuinfo).unwrap_or("unknown CPU").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            governor: governor.map(|text| text.trim().to_owned()),
            release_build: !cfg!(debug_assertions),
        }
    }
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_where_the_kernel_names_it() {
        assert_eq!(model_name("processor : 0\nmodel name\t: AMD EPYC\nflags : fpu"), Some("AMD EPYC"));
        assert_eq!(model_name("processor : 0"), None);
        assert!(Host::this().cores > 0 && !Host::this().kernel.is_empty());
    }
}
