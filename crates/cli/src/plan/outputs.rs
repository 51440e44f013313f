//! `build --output`: what is wanted, as buildx writes it (util/buildflags, export.go).

/// Where something goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What goes.
    pub kind: Kind,
    /// To which directory or file; `-` is standard output.
    pub destination: String,
    /// Of an image its names, separated by commas; empty for those that it has anyway.
    pub name: String,
    /// Whether it goes from the store to the registries of its names.
    pub push: bool,
    /// Whether an image is asked for as what `load` takes.
    pub loads: bool,
}

impl Output {
    /// The image, from the store to its registries.
    pub fn pushed() -> Output {
        Output { kind: Kind::Image, destination: String::new(), name: String::new(), push: true, loads: false }
    }

    /// Whether it is an image that can be pushed.
    pub fn is_named_image(&self) -> bool {
        self.kind == Kind::Image && !self.loads
    }
}

/// What goes somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but the image to the daemon's store.
    Image,
    /// Files to a directory.
    Directory,
    /// Files in an archive.
    Files,
    /// The image as a layout of OCI in an archive.
    Oci,
    /// The image in an archive for `load`.
    Docker,
}

/// Why an output is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// A field has no value.
    #[error("invalid value {0}")]
    Field(String),
    /// It is of no kind.
    #[error("type is required for output")]
    NoType,
    /// There is no such kind.
    #[error("exporter {0:?} could not be found")]
    Type(String),
    /// A field that nobody knows.
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// Its name.
        key: String,
        /// All of it.
        field: String,
    },
    /// Nobody knows whether it is pushed.
    #[error("non-bool value for push: {0}")]
    Push(String),
    /// It goes nowhere.
    #[error("dest is required for {0} exporter")]
    NoDestination(&'static str),
    /// A directory is none.
    #[error("dest cannot be stdout for local exporter")]
    DirectoryToStdout,
    /// Only one thing goes to standard output.
    #[error("only one output can go to standard output")]
    SeveralToStdout,
}

/// Reads all that are wanted.
pub fn parse(texts: &[String]) -> Result<Vec<Output>, OutputError> {
    let outputs = texts.iter().map(|text| one(text)).collect::<Result<Vec<_>, _>>()?;
    match outputs.iter().filter(|output| output.destination == "-").count() {
        0 | 1 => Ok(outputs),
        _ => Err(OutputError::SeveralToStdout),
    }
}

fn one(text: &str) -> Result<Output, OutputError> {
    if !text.contains('=') {
        let kind = if text == "-" { Kind::Files } else { Kind::Directory };
        return Ok(Output { kind, destination: text.to_owned(), name: String::new(), push: false, loads: false });
    }
    let (mut kind, mut destination, mut name, mut push) = ("", "", "", "");
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| OutputError::Field(field.to_owned()))?;
        match key.trim().to_lowercase().as_str() {
            "type" => kind = value,
            "dest" => destination = value,
            "name" => name = value,
            "push" => push = value,
            key => return Err(OutputError::Key { key: key.to_owned(), field: field.to_owned() }),
        }
    }
    let is_pushed = match push {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => kind == "registry",
        other => return Err(OutputError::Push(other.to_owned())),
    };
    let loads = kind == "docker" && destination.is_empty();
    let kind = match kind {
        "" => return Err(OutputError::NoType),
        "image" | "registry" => Kind::Image,
        _ if !name.is_empty() || !push.is_empty() => {
            let key = if name.is_empty() { "push" } else { "name" };
            return Err(OutputError::Key { key: key.to_owned(), field: text.to_owned() });
        }
        "local" => Kind::Directory,
        "tar" => Kind::Files,
        "oci" => Kind::Oci,
        "docker" if destination.is_empty() => Kind::Image,
        "docker" => Kind::Docker,
        other => return Err(OutputError::Type(other.to_owned())),
    };
    let destination = match (kind, destination) {
        (Kind::Image, _) => "",
        (Kind::Directory, "") => return Err(OutputError::NoDestination("local")),
        (Kind::Directory, "-") => return Err(OutputError::DirectoryToStdout),
        // As with buildx.
        (Kind::Files | Kind::Oci | Kind::Docker, "") => "-",
        (_, destination) => destination,
    };
    Ok(Output { kind, destination: destination.to_owned(), name: name.to_owned(), push: is_pushed, loads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_does() {
        let read = |text: &str| parse(&[text.to_owned()]).map(|all| (all[0].kind, all[0].destination.clone()));
        let is = |kind, to: &str| Ok((kind, to.to_owned()));
        for (text, wanted) in [
            ("out", is(Kind::Directory, "out")),
            ("-", is(Kind::Files, "-")),
            ("type=local,dest=out", is(Kind::Directory, "out")),
            ("dest=a=b,type=tar", is(Kind::Files, "a=b")),
            ("type=tar", is(Kind::Files, "-")),
            ("type=oci,dest=f", is(Kind::Oci, "f")),
            ("type=docker", is(Kind::Image, "")),
            ("type=docker,dest=f", is(Kind::Docker, "f")),
            ("type=image", is(Kind::Image, "")),
            ("type=registry,name=a", is(Kind::Image, "")),
            ("type=image,push=x", Err(OutputError::Push("x".to_owned()))),
            ("type=oci,name=a", Err(OutputError::Key { key: "name".to_owned(), field: "type=oci,name=a".to_owned() })),
            ("type=local", Err(OutputError::NoDestination("local"))),
            ("type=local,dest=-", Err(OutputError::DirectoryToStdout)),
            ("dest=f", Err(OutputError::NoType)),
            ("type=x,dest=f", Err(OutputError::Type("x".to_owned()))),
            ("type=tar,f", Err(OutputError::Field("f".to_owned()))),
            (
                "type=tar,compression=zstd",
                Err(OutputError::Key { key: "compression".to_owned(), field: "compression=zstd".to_owned() }),
            ),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        let both = ["-".to_owned(), "type=oci".to_owned()];
        assert_eq!(parse(&both), Err(OutputError::SeveralToStdout));
    }
}
