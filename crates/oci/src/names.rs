//! Names of the kernel's that specifications use and several crates look at.

/// Every capability of Linux 6.x by number (capabilities(7)), without the prefix `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability, by its whole name (`CAP_CHOWN`).
pub fn capability_number(name: &str) -> Option<usize> {
    let short = name.strip_prefix("CAP_")?;
    CAPABILITIES.iter().position(|known| *known == short)
}

/// Kernel parameters that belong to an IPC namespace (runc libcontainer/configs/validate, `sysctl`); `fs.mqueue.` and what
/// is below it does, too.
pub const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        for (name, number) in
            [("CAP_CHOWN", Some(0)), ("CAP_SYS_ADMIN", Some(21)), ("CAP_CHECKPOINT_RESTORE", Some(40)), ("CHOWN", None)]
        {
            assert_eq!(capability_number(name), number, "{name}");
        }
    }
}
