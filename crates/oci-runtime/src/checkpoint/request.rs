//! What is asked of CRIU, and what it answers (criu's images/rpc.proto; the numbers are its fields'). Pure.

use super::wire::{Message, Value, fields};

/// What is asked for, and what an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    /// CRIU's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
            Kind::FeatureCheck => "FEATURE_CHECK",
            Kind::Version => "VERSION",
        }
    }

    fn from_number(number: u64) -> Option<Kind> {
        let all = [Kind::Dump, Kind::Restore, Kind::PreDump, Kind::Notify, Kind::FeatureCheck, Kind::Version];
        all.into_iter().find(|kind| *kind as u64 == number)
    }
}

/// What becomes of the cgroups below the container's own, and of their limits (criu(8), `--manage-cgroups`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Nothing is done.
    Ignore = 0,
    /// Limits of what is made.
    Soft = 3,
    /// Limits of everything.
    Full = 4,
    /// Nothing may be there.
    Strict = 5,
    /// CRIU's choice: `Soft`.
    #[default]
    Default = 6,
}

/// How connections are cut off while they are written or made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NetworkLock {
    /// CRIU's choice, which is iptables or what it was built with.
    #[default]
    Default,
    /// By rules of nftables, for which it needs no other program.
    Nftables,
}

/// Settings of a dump or a restore; what is absent, empty or off is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Descriptors of CRIU's process.
    pub(super) images: i32,
    pub(super) work: Option<i32>,
    pub(super) log_file: &'static str,
    pub(super) root: Vec<u8>,
    pub(super) parent: Option<Vec<u8>>,
    pub(super) config_file: Option<String>,
    pub(super) cgroups: CgroupMode,
    pub(super) leave_running: bool,
    pub(super) tcp_established: bool,
    pub(super) tcp_skip_in_flight: bool,
    pub(super) ext_unix_sockets: bool,
    pub(super) shell_job: bool,
    pub(super) file_locks: bool,
    pub(super) link_remap: bool,
    pub(super) auto_dedup: bool,
    pub(super) lazy_pages: bool,
    /// The process to dump.
    pub(super) pid: Option<i32>,
    pub(super) freeze_cgroup: Option<Vec<u8>>,
    pub(super) page_server: Option<(String, u16)>,
    /// Mount points in the container; what they are called at a dump, where they come from at a restore.
    pub(super) mounts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Things of the host's, by CRIU's names.
    pub(super) external: Vec<String>,
    /// The same at a restore, with descriptors of CRIU's process.
    pub(super) inherited: Vec<(String, i32)>,
    /// Namespaces to join: CRIU's word, the file.
    pub(super) joined: Vec<(&'static str, Vec<u8>)>,
    /// The first process becomes a child of ours, by the restore of a swrk alone.
    pub(super) sibling: bool,
    /// Controllers, and the cgroup that takes the place of the old root.
    pub(super) cgroup_roots: Vec<(String, String)>,
    pub(super) lsm_profile: Option<String>,
    pub(super) lsm_mount_context: Option<String>,
    pub(super) network_lock: NetworkLock,
}

/// CRIU's level of words in its log that names every file; what is wrong can be found from it (runc's).
const LOG_LEVEL: i32 = 4;

/// CLONE_NEWNET: devices of networks are made by whoever made the container, never by us.
const EMPTY_NETWORK: u64 = 0x4000_0000;

impl Settings {
    fn message(&self) -> Message {
        let mut message = Message::default();
        message.signed(1, self.images).signed(9, LOG_LEVEL).text(10, self.log_file).text(13, &self.root);
        if let Some(pid) = self.pid {
            message.signed(2, pid);
        }
        let switches = [
            (3, self.leave_running),
            (4, self.ext_unix_sockets),
            (5, self.tcp_established),
            // Devices may have got other paths.
            (6, self.sibling),
            (7, self.shell_job),
            (8, self.file_locks),
            // Tell us of every step.
            (12, true),
            (15, self.parent.is_some()),
            (16, self.auto_dedup),
            (18, self.link_remap),
            (24, true),
            (26, self.sibling),
            (46, self.tcp_skip_in_flight),
            (48, self.lazy_pages),
            (50, true),
        ];
        for (field, on) in switches {
            message.switch(field, on);
        }
        message.number(34, self.cgroups as u64).number(38, EMPTY_NETWORK);
        if let Some(work) = self.work {
            message.signed(17, work);
        }
        if self.network_lock == NetworkLock::Nftables {
            message.number(64, 2);
        }
        self.add_texts(&mut message);
        self.add_lists(&mut message);
        message
    }

    fn add_texts(&self, message: &mut Message) {
        let texts = [
            (14, self.parent.as_deref()),
            (44, self.freeze_cgroup.as_deref()),
            (51, self.config_file.as_deref().map(str::as_bytes)),
            (53, self.lsm_profile.as_deref().map(str::as_bytes)),
            (63, self.lsm_mount_context.as_deref().map(str::as_bytes)),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                message.text(field, text);
            }
        }
    }

    fn add_lists(&self, message: &mut Message) {
        let two = |first: &[u8], second: &[u8]| {
            let mut pair = Message::default();
            pair.text(1, first).text(2, second);
            pair
        };
        if let Some((address, port)) = &self.page_server {
            message.message(11, Message::default().text(1, address).number(2, u64::from(*port)));
        }
        for (key, value) in &self.mounts {
            message.message(23, &two(key, value));
        }
        for (controller, path) in &self.cgroup_roots {
            message.message(25, &two(controller.as_bytes(), path.as_bytes()));
        }
        for (key, fd) in &self.inherited {
            message.message(27, Message::default().text(1, key).signed(2, *fd));
        }
        for external in &self.external {
            message.text(37, external);
        }
        for (namespace, file) in &self.joined {
            message.message(39, &two(namespace.as_bytes(), file));
        }
    }
}

/// Asks for a dump or a restore.
pub(super) fn work(kind: Kind, settings: &Settings) -> Vec<u8> {
    let mut message = Message::default();
    message.number(1, kind as u64).message(2, &settings.message());
    message.0
}

/// Asks which CRIU it is, and stays for more.
pub(super) fn version() -> Vec<u8> {
    let mut message = Message::default();
    message.number(1, Kind::Version as u64).switch(4, true);
    message.0
}

/// Something that not every kernel and every CRIU can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    MemoryTracking = 1,
    LazyPages = 2,
}

/// Asks for one feature, and stays for more.
pub(super) fn feature(feature: Feature) -> Vec<u8> {
    let mut message = Message::default();
    message.number(1, Kind::FeatureCheck as u64).switch(4, true);
    message.message(5, Message::default().switch(feature as u32, true));
    message.0
}

/// Answers a notification.
pub(super) fn notified(well: bool) -> Vec<u8> {
    let mut message = Message::default();
    // Sent when it is false, too: it is what counts.
    message.number(1, Kind::Notify as u64).number(3, u64::from(well));
    message.0
}

/// What CRIU says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) success: bool,
    pub(super) errno: i32,
    /// Why it failed, in CRIU's words; empty before version 4.
    pub(super) reason: String,
    /// The step that a notification is of, and the first process there.
    pub(super) script: String,
    pub(super) pid: Option<i32>,
    /// The features that were asked for and are there, as the fields' numbers.
    pub(super) features: Vec<u32>,
    /// As CRIU counts: 40101 is 4.1.1.
    pub(super) version: u32,
}

impl Answer {
    /// `None` if it is no answer.
    pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
        let mut answer = Answer {
            kind: Kind::Notify,
            success: false,
            errno: 0,
            reason: String::new(),
            script: String::new(),
            pid: None,
            features: Vec::new(),
            version: 0,
        };
        let mut kind = None;
        for (field, value) in fields(bytes)? {
            match (field, value) {
                (1, Value::Number(number)) => kind = Kind::from_number(number),
                (2, Value::Number(success)) => answer.success = success != 0,
                (7, value) => answer.errno = value.signed().unwrap_or_default(),
                (9, value) => answer.reason = value.text(),
                (4, Value::Bytes(restored)) => answer.read_restored(restored)?,
                (5, Value::Bytes(notify)) => answer.read_notify(notify)?,
                (8, Value::Bytes(features)) => {
                    let on = fields(features)?.into_iter().filter(|(_, value)| *value == Value::Number(1));
                    answer.features = on.map(|(field, _)| field).collect();
                }
                (10, Value::Bytes(version)) => answer.read_version(version)?,
                _ => {}
            }
        }
        Some(Answer { kind: kind?, ..answer })
    }

    fn read_restored(&mut self, bytes: &[u8]) -> Option<()> {
        self.pid = fields(bytes)?.into_iter().find(|(field, _)| *field == 1).and_then(|(_, value)| value.signed());
        Some(())
    }

    fn read_notify(&mut self, bytes: &[u8]) -> Option<()> {
        for (field, value) in fields(bytes)? {
            match field {
                1 => self.script = value.text(),
                2 => self.pid = value.signed(),
                _ => {}
            }
        }
        Some(())
    }

    fn read_version(&mut self, bytes: &[u8]) -> Option<()> {
        let fields = fields(bytes)?;
        let part = |field| {
            let value = fields.iter().find(|(number, _)| *number == field).and_then(|(_, value)| value.signed());
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
        };
        let version = part(1).checked_mul(10_000)?.checked_add(part(2).checked_mul(100)?)?;
        // A commit after a release counts as the next one (go-criu's rule).
        let between = fields.iter().any(|(field, value)| *field == 3 && !value.text().is_empty());
        let (release, added) = if between { (version - version % 100, 100) } else { (version, part(4)) };
        self.version = release.checked_add(added)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(build: impl FnOnce(&mut Message) -> &mut Message) -> Option<Answer> {
        let mut message = Message::default();
        build(&mut message);
        Answer::parse(&message.0)
    }

    #[test]
    fn answers_are_read() {
        let version = |parts: &[(u32, u64)], git: bool| {
            let mut version = Message::default();
            for (field, value) in parts {
                version.number(*field, *value);
            }
            if git {
                version.text(3, "v4.1-7-gabc");
            }
            answer(|message| message.number(1, 10).number(2, 1).message(10, &version)).unwrap().version
        };
        assert_eq!(version(&[(1, 4), (2, 1), (4, 1)], false), 40_101);
        assert_eq!(version(&[(1, 3), (2, 17)], false), 31_700);
        assert_eq!(version(&[(1, 3), (2, 17), (4, 1)], true), 31_800);
        let notified = answer(|message| {
            message.number(1, 6).number(2, 1).message(5, Message::default().text(1, "post-restore").number(2, 77))
        });
        let notified = notified.unwrap();
        assert_eq!((notified.kind, notified.script.as_str(), notified.pid), (Kind::Notify, "post-restore", Some(77)));
        let failed = answer(|message| message.number(1, 1).number(2, 0).number(7, 52).text(9, "no")).unwrap();
        assert_eq!((failed.kind, failed.success, failed.errno, failed.reason.as_str()), (Kind::Dump, false, 52, "no"));
        let features = answer(|message| {
            message.number(1, 9).number(2, 1).message(8, Message::default().number(1, 0).number(2, 1))
        });
        assert_eq!(features.unwrap().features, [Feature::LazyPages as u32]);
        // No kind, an unknown one, half a message.
        assert_eq!(answer(|message| message.number(2, 1)), None);
        assert_eq!(answer(|message| message.number(1, 99)), None);
        assert_eq!(Answer::parse(&[8]), None);
    }

    #[test]
    fn questions_have_what_criu_needs() {
        let settings = Settings {
            images: 7,
            log_file: "dump.log",
            pid: Some(42),
            leave_running: true,
            mounts: vec![("/data".into(), "/data".into())],
            external: vec!["net[4026]:extRootNetNS".into()],
            page_server: Some(("::1".into(), 9)),
            network_lock: NetworkLock::Nftables,
            ..Settings::default()
        };
        let message = work(Kind::Dump, &settings);
        let read = fields(&message).unwrap();
        assert_eq!(read[0], (1, Value::Number(1)));
        let Value::Bytes(inner) = read[1].1 else { panic!("{read:?}") };
        let inner = fields(inner).unwrap();
        let has = |field, value| assert!(inner.contains(&(field, value)), "{field}: {inner:?}");
        has(1, Value::Number(7));
        has(2, Value::Number(42));
        has(3, Value::Number(1));
        has(10, Value::Bytes(b"dump.log"));
        has(34, Value::Number(6));
        has(64, Value::Number(2));
        has(37, Value::Bytes(b"net[4026]:extRootNetNS"));
        has(23, Value::Bytes(b"\x0a\x05/data\x12\x05/data"));
        has(11, Value::Bytes(b"\x0a\x03::1\x10\x09"));
        for absent in [5, 14, 17, 26, 44, 51] {
            assert!(!inner.iter().any(|(field, _)| *field == absent), "{absent}");
        }
        assert_eq!(notified(false), [8, 6, 0x18, 0]);
    }
}
