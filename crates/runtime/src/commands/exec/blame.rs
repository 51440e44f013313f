//! Whom to blame when a process cannot be added: the flag that asked for it, else the field of config.json or of
//! exec's file. Pure.

use oci_runtime::{ExecError, PlanError, ProcessError};

use crate::arguments::Parsed;
use crate::error::{CommandError, field_of};

/// Fields that a flag changes.
const FLAGS: [(&str, &str); 6] = [
    ("process.cwd", "cwd"),
    ("process.apparmorProfile", "apparmor"),
    ("process.selinuxLabel", "process-label"),
    ("process.user.uid", "user"),
    ("process.user.gid", "user"),
    ("process.user.additionalGids", "additional-gids"),
];

/// The error as the caller can understand it, who may never have seen config.json.
pub(super) fn blame(err: ExecError, flags: &Parsed) -> CommandError {
    match err {
        ExecError::Process(source) => match field_of(&source) {
            None => CommandError::Exec { source: source.into() },
            // It stands on the command line, where it has no other name.
            Some("process.args[0]") if !has_file(flags) => CommandError::Exec { source: source.into() },
            Some(field) => match (flag_of(field, flags), source) {
                (Some(_), ProcessError::Cwd { path, source }) => CommandError::ExecDirectory { path, source },
                (_, source) => CommandError::ExecField { place: place(field, flags), source },
            },
        },
        ExecError::Plan { source: PlanError::Field { field, source } } => {
            CommandError::ExecPlan { place: place(&field, flags), source }
        }
        source => CommandError::Exec { source },
    }
}

fn has_file(flags: &Parsed) -> bool {
    flags.value("process").is_some()
}

/// The flag that was given for a field, if it was.
fn flag_of(field: &str, flags: &Parsed) -> Option<&'static str> {
    let whole = field.split('[').next().unwrap_or_default();
    let (_, flag) = FLAGS.iter().find(|(known, _)| *known == whole)?;
    let given = !has_file(flags) && flags.value(flag).is_some_and(|value| !value.is_empty());
    given.then_some(flag)
}

fn place(field: &str, flags: &Parsed) -> String {
    flag_of(field, flags).map_or_else(|| field.to_owned(), |flag| format!("--{flag}"))
}

#[cfg(test)]
mod tests {
    use oci_runtime::{FieldError, SystemError};
    use rustix::io::Errno;

    use super::*;
    use crate::arguments::{EXEC, parse};

    fn said(err: ExecError, line: &str) -> String {
        let flags = parse(&EXEC, line.split(' ').map(str::to_owned), false).unwrap();
        let text = errdefs::chain(&blame(err, &flags));
        text.strip_prefix("unable to start container process: ").unwrap().to_owned()
    }

    #[test]
    fn a_flag_is_blamed_where_it_was_given_and_its_field_where_it_was_not() {
        let cwd = || ProcessError::Cwd { path: "/nope".into(), source: SystemError(Errno::NOENT.into()) }.into();
        let plain = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
        assert_eq!(said(cwd(), "--cwd /nope c ls"), "--cwd /nope: no such file or directory");
        assert_eq!(said(cwd(), "c ls"), format!("process.cwd: {plain}"));
        assert_eq!(said(cwd(), "--cwd /nope -p file c"), format!("process.cwd: {plain}"));
        let missing = || ProcessError::NotInPath { name: "x".into() }.into();
        let plain = "exec: \"x\": executable file not found in $PATH";
        assert_eq!(said(missing(), "c x"), plain);
        assert_eq!(said(missing(), "-p file c"), format!("process.args[0]: {plain}"));
        let group = || {
            let (field, source) = ("process.user.additionalGids[1]".into(), FieldError::Empty);
            ExecError::Plan { source: PlanError::Field { field, source } }
        };
        assert_eq!(said(group(), "-g 7 c ls"), "--additional-gids: is empty");
        assert_eq!(said(group(), "c ls"), "process.user.additionalGids[1]: is empty");
    }
}
