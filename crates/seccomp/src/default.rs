//! Docker's default profile, as a table of facts.
//!
//! What it allows is that of moby v28.5.2 (profiles/seccomp); a test compares the two decisions, call by call.

use crate::profile::{Action, Architecture, Argument, Condition, Operator, Profile, Rule};

/// Allowed to everyone.
const ALWAYS: [&str; 8] = [
    // Files, directories and descriptors.
    "_llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
     faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
     fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 \
     fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat \
     inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat \
     listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 memfd_create \
     memfd_secret mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 \
     pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr \
     removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 \
     statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask \
     unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev",
    // Waiting for descriptors, and asynchronous input and output.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
     io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    // Sockets and messages.
    "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open \
     mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv \
     msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send \
     sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair",
    // Memory.
    "brk cachestat madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap \
     mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Time.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
     timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    // Signals.
    "kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask \
     sigreturn tgkill tkill",
    // Identity and privilege.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid \
     getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset \
     landlock_restrict_self prctl seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid \
     setuid32",
    // Processes, threads, scheduling and the machine.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrandom getrlimit \
     getrusage getsid gettid ioprio_get ioprio_set pidfd_open prlimit64 riscv_hwprobe rseq \
     sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
     sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
     sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address setpgid \
     setpriority setrlimit setsid sysinfo ugetrlimit uname uretprobe vfork wait4 waitid waitpid",
];

/// Allowed where the container's bounding set holds the capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
     lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
     quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Allowed on some processors only.
const WITH_ARCHITECTURE: [(&[&str], &str); 6] = [
    (&["ppc64le"], "sync_file_range2 swapcontext"),
    (&["arm", "arm64"], "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    (&["amd64", "x32"], "arch_prctl"),
    (&["amd64", "x32", "x86"], "modify_ldt"),
    (&["s390", "s390x"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (&["riscv64"], "riscv_flush_icache"),
];

/// Safe since the kernel applies the filter again after a tracer changed the call.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Linux, 32-bit addresses on 64 bits, both of it, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Sockets of this family reach the hypervisor, past every network namespace.
const AF_VSOCK: u64 = 40;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Sends programs back from clone3, whose flags a filter cannot see, to clone.
const ENOSYS: u32 = 38;

/// Other instruction sets that each processor runs, too.
const SUB_ARCHITECTURES: [(&str, &[&str]); 8] = [
    ("X86_64", &["X86", "X32"]),
    ("AARCH64", &["ARM"]),
    ("MIPS64", &["MIPS", "MIPS64N32"]),
    ("MIPS64N32", &["MIPS", "MIPS64"]),
    ("MIPSEL64", &["MIPSEL", "MIPSEL64N32"]),
    ("MIPSEL64N32", &["MIPSEL", "MIPSEL64"]),
    ("S390X", &["S390"]),
    ("RISCV64", &[]),
];

/// The calls of `words`, allowed.
fn allow(words: &str) -> Rule {
    Rule {
        names: words.split_whitespace().map(str::to_owned).collect(),
        action: Some(Action::Allow),
        ..Rule::default()
    }
}

fn condition(capabilities: &[&str], architectures: &[&str]) -> Option<Condition> {
    let owned = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    Some(Condition { capabilities: owned(capabilities), architectures: owned(architectures), min_kernel: None })
}

/// `words`, allowed where one argument compares.
fn allow_if(words: &str, index: u32, operator: Operator, value: u64) -> Rule {
    Rule { args: vec![Argument { index, value, value_two: 0, operator }], ..allow(words) }
}

/// The profile.
pub(crate) fn profile() -> Profile {
    let mut rules: Vec<Rule> = ALWAYS.iter().map(|words| allow(words)).collect();
    let since = Condition { min_kernel: Some((4, 8)), ..Condition::default() };
    rules.push(Rule { includes: Some(since), ..allow(SINCE_4_8) });
    rules.push(allow_if("socket", 0, Operator::NotEqual, AF_VSOCK));
    rules.extend(PERSONALITIES.iter().map(|value| allow_if("personality", 0, Operator::Equal, *value)));
    let architectures = WITH_ARCHITECTURE.iter();
    rules.extend(architectures.map(|(names, words)| Rule { includes: condition(&[], names), ..allow(words) }));
    let capabilities = WITH_CAPABILITY.iter();
    rules.extend(capabilities.map(|(name, words)| Rule { includes: condition(&[name], &[]), ..allow(words) }));
    rules.extend(without_sys_admin());
    let full = |name: &str| format!("SCMP_ARCH_{name}");
    let architectures = SUB_ARCHITECTURES
        .iter()
        .map(|(name, subs)| Architecture { name: full(name), subs: subs.iter().map(|sub| full(sub)).collect() });
    Profile {
        default_action: Some(Action::Errno),
        default_errno_ret: Some(1),
        architecture_map: architectures.collect(),
        syscalls: rules,
        ..Profile::default()
    }
}

/// New namespaces are for CAP_SYS_ADMIN. S/390 has the flags in the second argument.
fn without_sys_admin() -> [Rule; 3] {
    let s390 = ["s390", "s390x"];
    let clone = |index| allow_if("clone", index, Operator::MaskedEqual, NAMESPACE_FLAGS);
    [
        Rule { excludes: condition(&["CAP_SYS_ADMIN"], &s390), ..clone(0) },
        Rule { includes: condition(&[], &s390), excludes: condition(&["CAP_SYS_ADMIN"], &[]), ..clone(1) },
        Rule {
            action: Some(Action::Errno),
            errno: Some(ENOSYS),
            excludes: condition(&["CAP_SYS_ADMIN"], &[]),
            ..allow("clone3")
        },
    ]
}
