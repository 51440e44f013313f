//! One of many who type lines at a daemon that dies now and then.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use testkit::process::{self, DEADLINE};
use testkit::{Cli, Daemon, Output};

use crate::support::split;

/// What all clients share.
pub(super) struct Stage<'a> {
    /// Read while a line begins; written to while the daemon is killed and started again.
    pub(super) daemon: RwLock<&'a mut Daemon>,
    /// Read throughout a life; who writes knows that nobody is in the middle of one.
    pub(super) calm: RwLock<()>,
    /// How often the daemon was killed or started again.
    pub(super) changes: AtomicUsize,
    /// A client has seen what must not be.
    pub(super) failed: AtomicBool,
    pub(super) end: Instant,
}

impl Stage<'_> {
    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.end && !self.failed.load(Ordering::Relaxed)
    }
}

/// A life that the daemon's death cut short: nothing can be said of what followed.
#[derive(Debug)]
pub(super) struct Died;

/// What a step of a life answers.
pub(super) type Step<T = ()> = Result<T, Died>;

/// One life's client.
pub(super) struct Client<'a, 'd> {
    pub(super) stage: &'a Stage<'d>,
    pub(super) cli: Cli,
    /// The beginning of the names of all that it makes.
    pub(super) name: String,
    /// What the stage had counted when this life began.
    pub(super) changes: usize,
    /// What was typed, for the words of a failure.
    pub(super) typed: RefCell<Vec<String>>,
}

impl Client<'_, '_> {
    /// Types `line`, in which `@` is the client's name, and which must succeed; answers what it printed, trimmed.
    pub(super) fn ok(&self, line: &str) -> Step<String> {
        let output = self.line(line, b"");
        match output.success() {
            Ok(printed) => Ok(printed.to_owned()),
            Err(err) => Err(self.wrong(&format!("{line}: {err:#}"))),
        }
    }

    /// The same; it must print `expected`.
    pub(super) fn says(&self, line: &str, expected: &str) -> Step {
        let printed = self.ok(line)?;
        if printed == expected { Ok(()) } else { Err(self.wrong(&format!("{line}: {printed:?}, not {expected:?}"))) }
    }

    /// Types `line`, which must end with `code`.
    pub(super) fn ends(&self, line: &str, input: &[u8], code: i32) -> Step<String> {
        let output = self.line(line, input);
        if output.code == code {
            Ok(output.stdout)
        } else {
            Err(self.wrong(&format!("{line}: {output:?}, not {code}")))
        }
    }

    /// Types `line`, of which the daemon does one at a time and refuses the others.
    pub(super) fn in_turn(&self, line: &str) -> Step {
        let done = process::until(line, DEADLINE, || {
            let output = self.line(line, b"");
            (!output.stderr.contains("already running")).then_some(output)
        });
        match done {
            Ok(output) if output.code == 0 => Ok(()),
            done => Err(self.wrong(&format!("{line}: {done:?}"))),
        }
    }

    /// Types `line` until it prints `expected`.
    pub(super) fn becomes(&self, line: &str, expected: &str) -> Step {
        let mut failure = None;
        let found = process::until(line, DEADLINE, || match self.ok(line) {
            Ok(printed) => (printed == expected).then_some(()),
            Err(died) => {
                failure = Some(died);
                Some(())
            }
        });
        match (failure, found) {
            (Some(died), _) => Err(died),
            (None, Ok(())) => Ok(()),
            (None, Err(err)) => Err(self.wrong(&format!("{err:#}, wanted: {expected:?}"))),
        }
    }

    /// Removes what the life may have left, whatever became of it: this must work, when the daemon is back.
    pub(super) fn clean(&self) {
        let lines = ["rm -f -v @ @-2 @-3", "rmi -f @:made", "volume rm -f @ @-2"];
        for line in lines {
            let removed = || {
                let output = self.line(line, b"");
                let gone = output.stderr.lines().all(|line| line.contains("No such") || line.contains("no such"));
                (output.code == 0 || gone).then_some(())
            };
            process::until(line, DEADLINE, removed).unwrap_or_else(|err| panic!("{err:#}: {}", self.told()));
        }
    }

    /// A file of this client's on the host.
    pub(super) fn file(&self) -> PathBuf {
        let daemon = self.stage.daemon.read().expect("nobody panics with the daemon in hand");
        daemon.scratch().path().join(&self.name)
    }

    fn line(&self, line: &str, input: &[u8]) -> Output {
        let line = line.replace('@', &self.name);
        let mut command = {
            let daemon = self.stage.daemon.read().expect("nobody panics with the daemon in hand");
            daemon.command(self.cli).unwrap()
        };
        command.args(split(&line));
        self.typed.borrow_mut().push(line);
        // Its deadline is what finds calls that are stuck.
        process::run(&mut command, input).unwrap_or_else(|err| panic!("{err:#}: {}", self.told()))
    }

    /// What must not be, unless the daemon died in this life.
    pub(super) fn wrong(&self, what: &str) -> Died {
        let died = self.stage.changes.load(Ordering::SeqCst) != self.changes;
        assert!(died, "{what}\nafter {}", self.told());
        Died
    }

    fn told(&self) -> String {
        format!("{:?}:\n  {}", self.cli, self.typed.borrow().join("\n  "))
    }
}
