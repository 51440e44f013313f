//! `images --tree`: names, and below each what it stands for, platform by platform. The look is Docker's, to the letter.

use std::io::{self, IsTerminal};

use engine_api::image::{ManifestSummary, Summary};

use crate::args::Parsed;
use crate::format::{short_id, units};
use crate::report::Exit;
use crate::term;

/// Between two columns.
const SPACING: usize = 3;

/// Without a terminal.
const WIDTH_DEFAULT: usize = 80;

/// However narrow a terminal says it is.
const WIDTH_MIN: usize = 20;

/// What is left for names at least; columns on the right give way.
const NAME_WIDTH_MIN: usize = 12;

/// Flags that do not go with a tree, and how Docker names them.
const CONFLICTS: [(&str, &str); 4] =
    [("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")];

/// The columns behind the names: title, width, whether on the right.
const COLUMNS: [(&str, usize, bool); 4] =
    [("ID", 12, false), ("DISK USAGE", 10, true), ("CONTENT SIZE", 12, true), ("EXTRA", 5, false)];

/// Refuses what does not go with a tree.
pub(super) fn check(parsed: &Parsed) -> Result<(), Exit> {
    let given = |flag: &str| parsed.flag(flag) || !parsed.text(flag).is_empty();
    match CONFLICTS.iter().find(|(flag, _)| given(flag)) {
        Some((_, shown)) => Err(Exit::new(1, format!("--{shown} is not yet supported with --tree"))),
        None => Ok(()),
    }
}

/// The whole tree, for where standard output goes.
pub(super) fn of(images: &[Summary], all: bool) -> String {
    let is_terminal = io::stdout().is_terminal();
    let width = if is_terminal { usize::from(term::columns(io::stdout())) } else { 0 };
    let width = if width == 0 { WIDTH_DEFAULT } else { width.max(WIDTH_MIN) };
    let dangling = |image: &&Summary| image.repo_tags.is_empty() && image.repo_digests.is_empty();
    let shown = images.iter().filter(|image| all || !dangling(image));
    let mut tops: Vec<Top> = shown.map(Top::of).collect();
    tops.sort_by_key(|top| std::cmp::Reverse(top.created));
    Tree { tops, is_terminal, width }.draw()
}

/// What is said of an image or of one of its platforms.
#[derive(Debug, Default)]
struct Details {
    id: String,
    disk_usage: String,
    content_size: String,
    in_use: bool,
}

#[derive(Debug)]
struct Top {
    /// The longest first.
    names: Vec<String>,
    details: Details,
    children: Vec<Child>,
    created: i64,
}

#[derive(Debug)]
struct Child {
    platform: String,
    available: bool,
    details: Details,
}

impl Top {
    fn of(image: &Summary) -> Top {
        let manifests = image.manifests.as_deref().unwrap_or_default();
        let children: Vec<Child> = manifests.iter().filter_map(Child::of).collect();
        let content: i64 = manifests.iter().map(|one| one.size.content).fold(0, i64::saturating_add);
        let mut names = image.repo_tags.clone();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let details = Details {
            id: image.id.clone(),
            disk_usage: units::human_size(image.size as f64, 3),
            content_size: units::human_size(content as f64, 3),
            in_use: image.containers > 0 || children.iter().any(|child| child.details.in_use),
        };
        Top { names, details, children, created: image.created }
    }
}

impl Child {
    fn of(manifest: &ManifestSummary) -> Option<Child> {
        let image = manifest.image_data.as_ref().filter(|_| manifest.kind == "image")?;
        let os = if image.platform.os.is_empty() { "unknown" } else { &image.platform.os };
        let parts = [os, &image.platform.architecture, &image.platform.variant];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let details = Details {
            id: manifest.id.clone(),
            disk_usage: units::human_size(manifest.size.total as f64, 3),
            content_size: units::human_size(manifest.size.content as f64, 3),
            in_use: !image.containers.is_empty(),
        };
        Some(Child { platform: parts.join("/"), available: manifest.available, details })
    }
}

struct Tree {
    tops: Vec<Top>,
    is_terminal: bool,
    width: usize,
}

impl Tree {
    fn draw(&self) -> String {
        let (names, columns) = self.columns();
        let warning = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
        let mut text = format!("{}\n{}\n\n", self.color("\x1b[93m", warning), self.legend());
        // Docker's titles are bold wherever they go.
        let bold = |text: &str| format!("\x1b[39m\x1b[1m{text}\x1b[0m");
        text += &padded(&bold("IMAGE"), names, 5, false);
        for (title, width, right) in columns {
            text += &" ".repeat(SPACING);
            text += &padded(&bold(title), *width, title.len(), *right);
        }
        text.push('\n');
        let spaced = self.tops.iter().any(|top| !top.children.is_empty());
        for top in &self.tops {
            self.names(&mut text, names, top);
            self.details(&mut text, columns, &top.details, "\x1b[39m");
            if spaced {
                text.push('\n');
            }
            for (index, child) in top.children.iter().enumerate() {
                let color = if child.available { "\x1b[39m" } else { "\x1b[39m\x1b[2m" };
                let branch = if index + 1 == top.children.len() { "└─ " } else { "├─ " };
                text += &self.cell(&format!("{branch}{}", child.platform), names, false, color);
                self.details(&mut text, columns, &child.details, color);
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }

    /// The width of the names, and which columns there is room for.
    fn columns(&self) -> (usize, &'static [(&'static str, usize, bool)]) {
        let mut left = self.width;
        let mut count = 0;
        for (_, width, _) in COLUMNS {
            let needed = width + SPACING;
            if left < needed + NAME_WIDTH_MIN {
                break;
            }
            left -= needed;
            count += 1;
        }
        let names = self.tops.iter().flat_map(|top| top.names.iter().map(String::len));
        let platforms = self.tops.iter().flat_map(|top| top.children.iter().map(|it| it.platform.len() + "└─ ".len()));
        let widest = names.chain(platforms).chain(["Image".len()]).max().unwrap_or_default();
        (left.min(widest), &COLUMNS[..count])
    }

    /// On the right.
    fn legend(&self) -> String {
        let (legend, width) = match self.is_terminal {
            true => (
                format!(
                    "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m {} In Use ",
                    self.chip(true)
                ),
                "i Info →   U  In Use ".chars().count(),
            ),
            false => (" Info ->  U In Use ".to_owned(), " Info ->  U In Use ".len()),
        };
        format!("{}{legend}", " ".repeat(self.width.saturating_sub(width)))
    }

    fn chip(&self, in_use: bool) -> String {
        let text = match (self.is_terminal, in_use) {
            (true, true) => "\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m",
            (true, false) => "   ",
            (false, true) => "U",
            (false, false) => " ",
        };
        text.to_owned()
    }

    fn names(&self, text: &mut String, width: usize, top: &Top) {
        let Some((last, others)) = top.names.split_last() else {
            *text += &self.cell("<untagged>", width, false, "\x1b[39m\x1b[2m");
            return;
        };
        for name in others {
            *text += &self.color("\x1b[34m\x1b[1m", name);
            text.push('\n');
        }
        *text += &self.cell(last, width, false, "\x1b[34m\x1b[1m");
    }

    fn details(&self, text: &mut String, columns: &[(&str, usize, bool)], details: &Details, color: &str) {
        // The chips of a column that nothing is in are not even left out.
        let chips = self.tops.iter().flat_map(|top| &top.children).any(|child| child.details.in_use);
        for (title, width, right) in columns {
            *text += &" ".repeat(SPACING);
            *text += &match *title {
                "ID" => self.cell(short_id(&details.id), *width, *right, color),
                "DISK USAGE" => self.cell(&details.disk_usage, *width, *right, color),
                "CONTENT SIZE" => self.cell(&details.content_size, *width, *right, color),
                _ if chips => padded(&self.chip(details.in_use), *width, if self.is_terminal { 3 } else { 1 }, false),
                _ => " ".repeat(*width),
            };
        }
    }

    fn cell(&self, text: &str, width: usize, right: bool, color: &str) -> String {
        let length = text.chars().count();
        if length > width {
            let cut: String = text.chars().take(width.saturating_sub(1)).collect();
            return self.color(color, &format!("{cut}…"));
        }
        padded(&self.color(color, text), width, length, right)
    }

    fn color(&self, color: &str, text: &str) -> String {
        if self.is_terminal { format!("{color}{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Filled up to a width with blanks; `length` is what the eye sees of it.
fn padded(text: &str, width: usize, length: usize, right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(length));
    if right { format!("{blanks}{text}") } else { format!("{text}{blanks}") }
}

#[cfg(test)]
mod tests {
    use engine_api::image::{ImageData, ManifestSize, UnpackedSize};
    use oci::image::{Descriptor, Platform};

    use super::*;

    fn manifest(architecture: &str, available: bool, containers: &[&str]) -> ManifestSummary {
        let digest: oci::Digest = format!("sha256:{:064}", architecture.len()).parse().unwrap();
        let platform = Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() };
        let containers = containers.iter().map(|id| (*id).to_owned()).collect();
        let size =
            if available { ManifestSize { content: 700_000, total: 2_000_000 } } else { ManifestSize::default() };
        ManifestSummary {
            id: digest.to_string(),
            descriptor: Descriptor {
                media_type: String::new(),
                digest,
                size: 1,
                annotations: Default::default(),
                platform: None,
            },
            available,
            size,
            kind: "image".to_owned(),
            image_data: Some(ImageData { platform, size: UnpackedSize::default(), containers }),
            attestation_data: None,
        }
    }

    fn drawn(images: &[Summary], width: usize) -> String {
        let tops = images.iter().map(Top::of).collect();
        let tree = Tree { tops, is_terminal: false, width }.draw();
        tree.replace("\x1b[39m\x1b[1m", "").replace("\x1b[0m", "")
    }

    #[test]
    fn trees_look_as_dockers() {
        let plain = Summary {
            id: "sha256:9bd40be197be0000".into(),
            size: 2_060_000,
            repo_tags: vec!["busybox:latest".into()],
            ..Summary::default()
        };
        let tree = drawn(std::slice::from_ref(&plain), 80);
        let lines: Vec<&str> = tree.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "                                                              Info ->  U In Use ",
                "",
                "IMAGE            ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "busybox:latest   9bd40be197be       2.06MB             0B        ",
            ]
        );
        let manifests = Some(vec![manifest("amd64", true, &["c"]), manifest("arm64v", false, &[])]);
        let both = Summary { manifests, size: 2_000_000, ..plain };
        let tree = drawn(&[both], 80);
        let lines: Vec<&str> = tree.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "IMAGE                 ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "busybox:latest        9bd40be197be          2MB          700kB   U    ",
                "├─ linux/amd64        000000000000          2MB          700kB   U    ",
                "└─ linux/arm64v       000000000000           0B             0B        ",
                "",
            ]
        );
    }

    #[test]
    fn narrow_terminals_lose_columns_on_the_right() {
        let image = Summary { repo_tags: vec!["registry.example/a/long/name:latest".into()], ..Summary::default() };
        let tree = drawn(&[image], 30);
        assert_eq!(tree.lines().nth(3), Some("IMAGE             ID          "), "{tree}");
        assert!(tree.lines().nth(4).is_some_and(|line| line.starts_with("registry.examp…   ")), "{tree}");
    }
}
