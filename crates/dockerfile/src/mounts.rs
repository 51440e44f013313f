//! `RUN --mount`.

use crate::fault::Fault;
use crate::suggest::meant;

/// Something that is mounted while a command runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// The stage or image that it is of.
    pub from: String,
    /// Where it is there; of a secret its name.
    pub source: String,
    /// Where it appears.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// How much a tmpfs may hold, in bytes; 0 for no limit.
    pub size_bytes: i64,
    /// The name of a cache, secret or agent.
    pub id: String,
    /// Who may use a cache at the same time, if said.
    pub sharing: Option<Sharing>,
    /// Whether a secret or agent must be there.
    pub required: bool,
    /// The variable that a secret appears in.
    pub env: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// What a mount is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that is there again the next time.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that the client has.
    Secret,
    /// The client's agent.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// Nobody: each has its own.
    Private,
    /// One after the other.
    Locked,
}

impl MountKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Cache => "cache",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Secret => "secret",
            MountKind::Ssh => "ssh",
        }
    }
}

const KINDS: [MountKind; 5] = [MountKind::Bind, MountKind::Cache, MountKind::Tmpfs, MountKind::Secret, MountKind::Ssh];

const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
    "name",
];

/// Replaces the variables of a value.
pub(crate) type Expander<'a> = dyn Fn(&str) -> Result<String, Fault> + 'a;

/// Reads a mount. Without an expander only what does not wait for variables is looked at: whose files it shows, and which.
pub(crate) fn parse(text: &str, expander: Option<&Expander<'_>>) -> Result<Mount, Fault> {
    let (mut mount, mut read_only) = (Mount::default(), None);
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
            None => (field.to_lowercase(), None),
        };
        let value = match (value, expander) {
            (None, None) => continue,
            (None, Some(_)) => {
                mount.switch(&key, &field, &mut read_only)?;
                continue;
            }
            (Some(value), None) => {
                if key == "from" && value.find('$').is_some_and(|at| at + 1 != value.len()) {
                    return Err(Fault::MountFrom);
                }
                mount.guess(&key, value);
                continue;
            }
            (Some(value), Some(expand)) => expand(&value)?,
        };
        mount.set(&key, &field, value, &mut read_only)?;
    }
    let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
    mount.read_only = read_only.unwrap_or(!writable);
    if expander.is_some() {
        mount.check()?;
    }
    Ok(mount)
}

/// Fields between commas, of which one in quotes may hold some.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

fn boolean(key: &str, value: String) -> Result<bool, Fault> {
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Fault::MountValue { key: key.to_owned(), value }),
    }
}

fn number(key: &'static str, value: String, radix: u32) -> Result<Option<u32>, Fault> {
    u32::from_str_radix(&value, radix).map(Some).map_err(|_| Fault::MountNumber { key, value })
}

/// Bytes: `64m`, `1.5GB`, `100`.
fn bytes(value: &str) -> Option<i64> {
    let lower = value.to_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, unit) = match lower.char_indices().last()? {
        (at, unit @ ('k' | 'm' | 'g' | 't' | 'p')) => (&lower[..at], unit),
        _ => (lower, ' '),
    };
    let number: f64 = digits.trim().parse().ok()?;
    let power = " kmgtp".find(unit)?;
    (number >= 0.0).then_some((number * 1024f64.powi(power as i32)) as i64)
}

impl Mount {
    fn has_agent(&self) -> bool {
        matches!(self.kind, MountKind::Secret | MountKind::Ssh)
    }

    /// Notes what a value may mean that still has its variables, which may become anything.
    fn guess(&mut self, key: &str, value: String) {
        match key {
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "type" => self.kind = kind(value).unwrap_or_default(),
            _ => {}
        }
    }

    /// A key without a value.
    fn switch(&mut self, key: &str, field: &str, read_only: &mut Option<bool>) -> Result<(), Fault> {
        match key {
            "readonly" | "ro" => *read_only = Some(true),
            "readwrite" | "rw" => *read_only = Some(false),
            "required" if self.has_agent() => self.required = true,
            "required" => return Err(Fault::MountKeyOf { key: key.to_owned(), kind: self.kind.name() }),
            _ => return Err(Fault::MountField(field.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, field: &str, value: String, read_only: &mut Option<bool>) -> Result<(), Fault> {
        let not_of_kind = |kind: MountKind| Fault::MountKeyOf { key: key.to_owned(), kind: kind.name() };
        match key {
            "type" => self.kind = kind(value)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *read_only = Some(boolean(key, value)?),
            "readwrite" | "rw" => *read_only = Some(!boolean(key, value)?),
            "required" if self.has_agent() => self.required = boolean(key, value)?,
            "size" if self.kind == MountKind::Tmpfs => {
                let bad = || Fault::MountValue { key: key.to_owned(), value: value.clone() };
                self.size_bytes = bytes(&value).ok_or_else(bad)?;
            }
            "required" | "size" => return Err(not_of_kind(self.kind)),
            "id" => self.id = value,
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = number("mode", value, 8)?,
            "uid" => self.uid = number("uid", value, 10)?,
            "gid" => self.gid = number("gid", value, 10)?,
            "env" => self.env = Some(value),
            _ => {
                let meant = meant(key, &KEYS, true);
                return Err(Fault::MountKey { key: key.to_owned(), field: field.to_owned(), meant });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Fault> {
        let kind = self.kind.name();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, said) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if said.is_some() {
                    return Err(Fault::MountOwner { key, kind });
                }
            }
        }
        if self.kind == MountKind::Secret {
            match () {
                () if !self.from.is_empty() => return Err(Fault::SecretFrom),
                () if self.sharing.is_some() => return Err(Fault::SecretSharing),
                () if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() => {
                    return Err(Fault::SecretPlace);
                }
                () if !self.source.is_empty() && !self.id.is_empty() => return Err(Fault::SecretBoth),
                () => {}
            }
        }
        match self.sharing {
            Some(_) if self.kind != MountKind::Cache => Err(Fault::MountSharingOf(kind)),
            _ => Ok(()),
        }
    }
}

fn kind(value: String) -> Result<MountKind, Fault> {
    let lower = value.to_lowercase();
    match KINDS.into_iter().find(|kind| kind.name() == lower) {
        Some(kind) => Ok(kind),
        None => {
            let meant = meant(&value, &KINDS.map(MountKind::name), true);
            Err(Fault::MountType { value, meant })
        }
    }
}

fn sharing(value: String) -> Result<Sharing, Fault> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let meant = meant(&value, &["shared", "private", "locked"], true);
            Err(Fault::MountSharing { value, meant })
        }
    }
}
