//! `--mount` and `-v`.

use engine_api::host_config::{BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions};

use super::environment::pair;
use super::values;

/// Why a mount is wrong. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Nothing at all.
    #[error("EOF")]
    Empty,
    /// No `=`.
    #[error("invalid field '{0}' must be a key=value pair")]
    Pair(String),
    /// No such key.
    #[error("unexpected key '{0}' in '{1}'")]
    Key(String, String),
    /// A value that its key does not take.
    #[error("invalid value for {0}: {1}")]
    Value(String, String),
    /// A recursion that does not exist.
    #[error("invalid value for bind-recursive: {0} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")")]
    Recursive(String),
    /// `type=` with nothing behind it.
    #[error("type is required")]
    Type,
    /// No target.
    #[error("target is required")]
    Target,
    /// An option of another type.
    #[error("cannot mix '{0}-*' options with mount type '{1}'")]
    Mixed(&'static str, String),
    /// An option without the one it needs.
    #[error("option 'bind-recursive={0}' requires '{1}' to be specified in conjunction")]
    Requires(&'static str, &'static str),
}

/// Reads `type=bind,source=/a,target=/b`; `absolute` turns the user's relative paths into the daemon's.
pub fn parse(text: &str, absolute: &dyn Fn(&str) -> String) -> Result<Mount, MountError> {
    if text.is_empty() {
        return Err(MountError::Empty);
    }
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match value {
            Some(value) => set(&mut mount, &key, value, &field, absolute)?,
            None => set_bare(&mut mount, &key, &field)?,
        }
    }
    validate(&mount)?;
    Ok(mount)
}

/// How often a mount is said with a key that Docker's client warns of: with a value alone, as it does.
pub fn outdated(text: &str) -> usize {
    let is_outdated = |field: &String| field.to_ascii_lowercase().starts_with("bind-nonrecursive=");
    fields(text).iter().filter(|field| is_outdated(field)).count()
}

/// The fields of one line of comma-separated values; a field in double quotes may hold commas, and doubles its quotes.
pub(super) fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

fn set_bare(mount: &mut Mount, key: &str, field: &str) -> Result<(), MountError> {
    match key {
        "readonly" | "ro" => mount.read_only = true,
        "volume-nocopy" => volume(mount).no_copy = true,
        "bind-nonrecursive" => bind(mount).non_recursive = true,
        _ => return Err(MountError::Pair(field.to_owned())),
    }
    Ok(())
}

fn set(
    mount: &mut Mount,
    key: &str,
    value: &str,
    field: &str,
    absolute: &dyn Fn(&str) -> String,
) -> Result<(), MountError> {
    let bad = || MountError::Value(key.to_owned(), value.to_owned());
    let boolean = || values::boolean(value).map_err(|_| bad());
    match key {
        "type" => mount.kind = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = boolean()?,
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_ascii_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = boolean()?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => return Err(MountError::Recursive(value.to_owned())),
        },
        "tmpfs-size" => tmpfs(mount).size_bytes = values::bytes(value).map_err(|_| bad())?,
        "tmpfs-mode" => tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| bad())?,
        "volume-nocopy" => volume(mount).no_copy = boolean()?,
        "volume-subpath" => value.clone_into(&mut volume(mount).subpath),
        "image-subpath" => value.clone_into(&mut mount.image_options.get_or_insert_default().subpath),
        "volume-label" => volume(mount).labels.get_or_insert_default().extend([pair(value)]),
        "volume-driver" => value.clone_into(&mut driver(mount).name),
        "volume-opt" => driver(mount).options.get_or_insert_default().extend([pair(value)]),
        _ => return Err(MountError::Key(key.to_owned(), field.to_owned())),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    let options = mount.volume_options.get_or_insert_default();
    // Docker's client sends both or none.
    options.driver_config.get_or_insert_default();
    options
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_default()
}

fn validate(mount: &Mount) -> Result<(), MountError> {
    let kind = mount.kind.as_str();
    if kind.is_empty() {
        return Err(MountError::Type);
    }
    if mount.target.is_empty() {
        return Err(MountError::Target);
    }
    for (family, of, given) in [
        ("volume", "volume", mount.volume_options.is_some()),
        ("image", "image", mount.image_options.is_some()),
        ("bind", "bind", mount.bind_options.is_some()),
        ("tmpfs", "tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && kind != of {
            return Err(MountError::Mixed(family, kind.to_owned()));
        }
    }
    let Some(bind) = &mount.bind_options else { return Ok(()) };
    match bind {
        BindOptions { read_only_non_recursive: true, .. } if !mount.read_only => {
            Err(MountError::Requires("writable", "readonly"))
        }
        BindOptions { read_only_force_recursive: true, .. } if !mount.read_only => {
            Err(MountError::Requires("readonly", "readonly"))
        }
        BindOptions { read_only_force_recursive: true, propagation, .. } if propagation != "rprivate" => {
            Err(MountError::Requires("readonly", "bind-propagation=rprivate"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let read = |text: &str| serde_json::to_string(&parse(text, &|p| format!("/cwd/{p}")).unwrap()).unwrap();
        assert_eq!(
            read("type=tmpfs,dst=/a,tmpfs-mode=1770"),
            r#"{"Type":"tmpfs","Target":"/a","TmpfsOptions":{"Mode":1016}}"#
        );
        assert_eq!(
            read("type=bind,\"src=a,b\",target=/c,ro"),
            r#"{"Type":"bind","Source":"/cwd/a,b","Target":"/c","ReadOnly":true}"#
        );
        assert_eq!(
            read(
                "target=/a,volume-nocopy,volume-label=a=b,volume-label=c,volume-driver=d,volume-opt=e=f,volume-subpath=g"
            ),
            r#"{"Type":"volume","Target":"/a","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b","c":""},"Subpath":"g","DriverConfig":{"Name":"d","Options":{"e":"f"}}}}"#
        );
    }

    #[test]
    fn sentences() {
        for (text, sentence) in [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("a=b", "unexpected key 'a' in 'a=b'"),
            ("type=bind,ro=x", "invalid value for ro: x"),
            ("type=bind", "target is required"),
            ("type=tmpfs,target=/a,bind-propagation=shared", "cannot mix 'bind-*' options with mount type 'tmpfs'"),
        ] {
            assert_eq!(parse(text, &|p| p.to_owned()).unwrap_err().to_string(), sentence);
        }
    }
}
