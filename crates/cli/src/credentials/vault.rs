//! Logins that are not kept in clear text: one file, sealed with a key that lies in another directory.
//!
//! ```text
//! $XDG_DATA_HOME/longshore/logins        nonce, then the sealed JSON {address: {username, secret}}
//! $XDG_CONFIG_HOME/longshore/logins.key  32 random bytes
//! ```
//!
//! config.json is copied to other machines, mounted into containers and put into repositories and backups; then it gives
//! nobody a password. Whoever may read all files of the user reads both of these: against that only a keychain helps, whose
//! helper is preferred where one is installed.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;

use crate::report::go_error;

/// Length of the key in bytes.
const KEY_LEN: usize = 32;

/// More is not read: a few hundred bytes are enough for a login.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// A change takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Says what was sealed, and in which form: a file of another one does not open.
const FORM: &[u8] = b"longshore logins 1";

/// Name and secret of one login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) username: String,
    pub(super) secret: String,
}

/// By the registry's address.
pub(super) type Logins = BTreeMap<String, Entry>;

/// Why logins were not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum VaultError {
    /// A file or directory cannot be read or written.
    #[error("{}: {}", path.display(), go_error(source))]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was changed, or belongs to another key.
    #[error("{} cannot be opened with {}: remove both and log in again", logins.display(), key.display())]
    Sealed {
        /// The logins.
        logins: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Nobody knows where they belong.
    #[error("neither HOME nor XDG_DATA_HOME and XDG_CONFIG_HOME are set: there is no place for logins")]
    NoHome,
    /// Somebody else changes them, and does not end.
    #[error("{}: another program has held this lock for ten seconds", .0.display())]
    Busy(PathBuf),
    /// The system gives no random numbers.
    #[error("no random numbers for a key")]
    Random,
}

/// Where the two files are.
pub(super) struct Vault {
    logins: PathBuf,
    key: PathBuf,
}

impl Vault {
    /// The user's, by the XDG base directory specification.
    pub(super) fn of_user() -> Result<Vault, VaultError> {
        let place = |variable: &str, default: &str| {
            let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            let base = given.or_else(|| Some(Path::new(&home?).join(default)));
            base.map(|base| base.join("longshore")).ok_or(VaultError::NoHome)
        };
        Ok(Vault {
            logins: place("XDG_DATA_HOME", ".local/share")?.join("logins"),
            key: place("XDG_CONFIG_HOME", ".config")?.join("logins.key"),
        })
    }

    /// All logins; none where nothing was ever kept.
    pub(super) fn read(&self) -> Result<Logins, VaultError> {
        let Some(mut sealed) = read(&self.logins)? else { return Ok(Logins::new()) };
        let damaged = || VaultError::Sealed { logins: self.logins.clone(), key: self.key.clone() };
        let key = read(&self.key)?.and_then(|bytes| sealing(&bytes)).ok_or_else(damaged)?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let opened = key.open_in_place(nonce, Aad::from(FORM), text).map_err(|_| damaged())?;
        serde_json::from_slice(opened).map_err(|_| damaged())
    }

    /// Changes the logins; two changes at once come one after the other.
    pub(super) fn change(&self, change: impl FnOnce(&mut Logins)) -> Result<(), VaultError> {
        let (directory, lock) = (parent(&self.logins), self.logins.with_extension("lock"));
        stdx::fs::create_private_dir(directory).map_err(failed(directory))?;
        // Held until the end of this function.
        let _locked = locked(&lock)?;
        let mut logins = self.read()?;
        let before = logins.clone();
        change(&mut logins);
        if logins == before {
            return Ok(());
        }
        let text = serde_json::to_vec(&logins).expect("texts can be written as JSON");
        let sealed = seal(&self.key()?, text)?;
        stdx::fs::write_atomic(&self.logins, &sealed, Durability::PowerCut).map_err(failed(&self.logins))
    }

    /// The key; made if there is none. One that exists is never replaced: what it has sealed could not be opened again.
    fn key(&self) -> Result<LessSafeKey, VaultError> {
        if fs::symlink_metadata(&self.key).is_err() {
            self.make_key()?;
        }
        let damaged = || VaultError::Sealed { logins: self.logins.clone(), key: self.key.clone() };
        read(&self.key)?.and_then(|bytes| sealing(&bytes)).ok_or_else(damaged)
    }

    /// The lock is that of the logins; another place for them may make a key here at the same time, and one of both counts.
    fn make_key(&self) -> Result<(), VaultError> {
        let (mut bytes, mut name) = ([0; KEY_LEN], [0; 8]);
        let random = SystemRandom::new();
        random.fill(&mut bytes).and_then(|()| random.fill(&mut name)).map_err(|_| VaultError::Random)?;
        let directory = parent(&self.key);
        stdx::fs::create_private_dir(directory).map_err(failed(directory))?;
        let new = directory.join(format!("logins.key.{:x}", u64::from_ne_bytes(name)));
        let linked = stdx::fs::write_atomic(&new, &bytes, Durability::PowerCut).and_then(|()| {
            match fs::hard_link(&new, &self.key) {
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        });
        // The error above is the one that matters.
        let _ = fs::remove_file(&new);
        linked.and_then(|()| stdx::fs::sync_dir(directory)).map_err(failed(&self.key))
    }
}

/// Waits for it as long as a person would.
fn locked(path: &Path) -> Result<File, VaultError> {
    let file = File::create(path).map_err(failed(path))?;
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(VaultError::Busy(path.to_owned())),
            Err(TryLockError::Error(err)) => return Err(failed(path)(err)),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> VaultError + '_ {
    |source| VaultError::File { path: path.to_owned(), source }
}

/// What is in a file; nothing if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(failed(path)(err)),
    };
    if length > FILE_MAX_BYTES {
        return Err(failed(path)(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map(Some).map_err(failed(path))
}

/// None if these are no bytes of a key.
fn sealing(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new)
}

/// A random nonce and the sealed text. Of 2^32 changes one in 2^33 users would see a nonce twice.
fn seal(key: &LessSafeKey, mut text: Vec<u8>) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Random)?;
    let sealed = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(FORM), &mut text);
    sealed.map_err(|_| VaultError::Random)?;
    Ok([&nonce, &text[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(dir: &Path) -> Vault {
        Vault { logins: dir.join("data/logins"), key: dir.join("config/logins.key") }
    }

    fn entry(secret: &str) -> Entry {
        Entry { username: "user".to_owned(), secret: secret.to_owned() }
    }

    #[test]
    fn logins_are_there_again_and_nowhere_in_clear_text() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        assert!(vault.read().unwrap().is_empty());
        for (host, secret) in [("a.test", "first secret"), ("b.test", "second secret")] {
            vault.change(|logins| drop(logins.insert(host.to_owned(), entry(secret)))).unwrap();
        }
        vault.change(|logins| drop(logins.remove("a.test"))).unwrap();
        let kept = vault.read().unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["b.test"]);
        assert!(kept["b.test"] == entry("second secret"));
        let bytes = fs::read(&vault.logins).unwrap();
        for word in ["secret", "b.test", "user"] {
            assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn what_was_changed_or_is_anothers_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        let keep = || vault.change(|logins| drop(logins.insert("a.test".to_owned(), entry("x"))));
        keep().unwrap();
        let good = fs::read(&vault.logins).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        for bytes in [flipped(0), flipped(NONCE_LEN), flipped(good.len() - 1), good[..5].to_vec(), Vec::new()] {
            fs::write(&vault.logins, &bytes).unwrap();
            assert!(matches!(vault.read(), Err(VaultError::Sealed { .. })));
            assert!(vault.change(|logins| logins.clear()).is_err());
            assert_eq!(fs::read(&vault.logins).unwrap(), bytes);
        }
        fs::write(&vault.logins, &good).unwrap();
        fs::write(&vault.key, [7; KEY_LEN]).unwrap();
        let sentence = vault.read().err().unwrap().to_string();
        assert!(sentence.ends_with("logins.key: remove both and log in again"), "{sentence}");
        assert!(keep().is_err());
        fs::write(&vault.key, [7; 5]).unwrap();
        assert!(keep().is_err());
        assert_eq!(fs::read(&vault.key).unwrap(), [7; 5]);
    }

    #[test]
    fn two_places_at_once_make_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let at = |number: u32| Vault {
            logins: dir.path().join(format!("{number}/logins")),
            key: dir.path().join("config/logins.key"),
        };
        std::thread::scope(|scope| {
            for number in 0..8 {
                let vault = at(number);
                scope.spawn(move || {
                    vault.change(|logins| drop(logins.insert("a.test".to_owned(), entry("x")))).unwrap()
                });
            }
        });
        assert!((0..8).all(|number| at(number).read().unwrap().len() == 1));
        assert_eq!(fs::read_dir(dir.path().join("config")).unwrap().count(), 1);
    }

    #[test]
    fn changes_at_once_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let add = move || {
                    vault(place).change(|logins| drop(logins.insert(format!("{number}.test"), entry("x")))).unwrap();
                };
                scope.spawn(add);
            }
        });
        assert_eq!(vault(place).read().unwrap().len(), 8);
    }
}
