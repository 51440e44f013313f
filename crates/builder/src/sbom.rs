//! What is in an image, by the records that package managers leave in it, as a document of SPDX 2.3 (spdx.github.io/spdx-spec
//! v2.3). Pure: whoever has the files (`engine::ops::build::sbom`) gives their texts.
//!
//! Read are Debian's `dpkg` (`status`, and `status.d` of images without a shell), Alpine's `apk`, Python's `METADATA` and
//! `PKG-INFO`, Node's `package.json` and Ruby's names of gems. What was compiled in, or copied without a record, is not found.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::attest::escaped;

/// The most packages of an image: a full Debian has some 60,000 to choose from.
pub const PACKAGES_MAX: usize = 100_000;

/// The longest text that is taken of a record, in bytes.
const TEXT_MAX: usize = 1024;

/// A package that is in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its kind, as package URLs have it: `deb`, `apk`, `pypi`, `npm`, `gem`.
    pub kind: &'static str,
    /// Whose it is there: `debian`, or an npm scope.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The processor it is for; empty for any.
    pub architecture: String,
    /// The license as its author wrote it; empty where that is nowhere said.
    pub license: String,
    /// The file that says so, from the root of the image.
    pub source: String,
}

/// The distribution, as `/etc/os-release` has it (os-release(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// `debian`
    pub id: String,
    /// `12`
    pub version: String,
    /// For people.
    pub name: String,
}

/// Which record a path is, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Stanzas of dpkg.
    Dpkg,
    /// Stanzas of apk.
    Apk,
    /// The head of a Python package.
    Python,
    /// A `package.json`.
    Node,
    /// A gem, by its file's name.
    Gem,
}

/// Which record lies at a path, from the root without a slash.
pub fn record_at(path: &str) -> Option<Record> {
    let (directory, file) = path.rsplit_once('/')?;
    let parent = directory.rsplit('/').next().unwrap_or_default();
    match file {
        "status" if directory == "var/lib/dpkg" => Some(Record::Dpkg),
        "installed" if matches!(directory, "lib/apk/db" | "usr/lib/apk/db") => Some(Record::Apk),
        "METADATA" if parent.ends_with(".dist-info") => Some(Record::Python),
        "PKG-INFO" if parent.ends_with(".egg-info") => Some(Record::Python),
        "package.json" => {
            // Of a package itself: `node_modules/NAME`, `node_modules/@SCOPE/NAME`.
            let mut above = directory.rsplit('/').skip(1);
            let (first, second) = (above.next()?, above.next());
            let is_package = first == "node_modules" || first.starts_with('@') && second == Some("node_modules");
            is_package.then_some(Record::Node)
        }
        file if directory == "var/lib/dpkg/status.d" && !file.ends_with(".md5sums") => Some(Record::Dpkg),
        file if file.ends_with(".gemspec") && parent == "specifications" => Some(Record::Gem),
        _ => None,
    }
}

/// Reads `/etc/os-release`.
pub fn distribution(text: &str) -> Distribution {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        short(line.unwrap_or_default().trim_matches(['"', '\'']))
    };
    Distribution { id: value("ID"), version: value("VERSION_ID"), name: value("PRETTY_NAME") }
}

/// The packages that a record tells of.
pub fn packages(record: Record, path: &str, text: &str, distribution: &Distribution) -> Vec<Package> {
    let found = match record {
        Record::Dpkg => stanzas(text).filter_map(|fields| dpkg(&fields, distribution)).collect(),
        Record::Apk => stanzas(text).filter_map(|fields| apk(&fields, distribution)).collect(),
        Record::Python => stanzas(text).next().and_then(|fields| python(&fields)).into_iter().collect(),
        Record::Node => node(text).into_iter().collect(),
        Record::Gem => gem(path).into_iter().collect::<Vec<_>>(),
    };
    let with_source = |package: Package| Package { source: path.to_owned(), ..package };
    found.into_iter().filter(|package| !package.name.is_empty()).take(PACKAGES_MAX).map(with_source).collect()
}

/// Fields up to an empty line; what goes on in another line is left out.
fn stanzas(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    let field = |line| {
        let (name, value): (&str, &str) = str::split_once(line, ':')?;
        (!name.starts_with([' ', '\t'])).then(|| (name, value.trim()))
    };
    text.split("\n\n")
        .filter(|stanza| !stanza.trim().is_empty())
        .map(move |stanza| stanza.lines().filter_map(field).collect())
}

fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn value(fields: &BTreeMap<&str, &str>, name: &str) -> String {
    short(fields.get(name).copied().unwrap_or_default())
}

fn namespace(distribution: &Distribution, usual: &str) -> String {
    if distribution.id.is_empty() { usual.to_owned() } else { distribution.id.clone() }
}

fn dpkg(fields: &BTreeMap<&str, &str>, distribution: &Distribution) -> Option<Package> {
    // What was removed and has left its configuration is there, too. Without the field it is the record of an image
    // without dpkg.
    let is_installed = fields.get("Status").is_none_or(|status| status.ends_with(" installed"));
    is_installed.then(|| Package {
        kind: "deb",
        namespace: namespace(distribution, "debian"),
        name: value(fields, "Package"),
        version: value(fields, "Version"),
        architecture: value(fields, "Architecture"),
        ..Package::default()
    })
}

fn apk(fields: &BTreeMap<&str, &str>, distribution: &Distribution) -> Option<Package> {
    Some(Package {
        kind: "apk",
        namespace: namespace(distribution, "alpine"),
        name: value(fields, "P"),
        version: value(fields, "V"),
        architecture: value(fields, "A"),
        license: value(fields, "L"),
        ..Package::default()
    })
}

fn python(fields: &BTreeMap<&str, &str>) -> Option<Package> {
    let license = fields.get("License-Expression").or(fields.get("License")).copied().unwrap_or_default();
    Some(Package {
        kind: "pypi",
        // PyPI's names have one form (purl-spec, "pypi").
        name: value(fields, "Name").to_lowercase().replace('_', "-"),
        version: value(fields, "Version"),
        license: short(license),
        ..Package::default()
    })
}

fn node(text: &str) -> Option<Package> {
    #[derive(Deserialize)]
    struct Head {
        name: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        license: Value,
    }
    let head: Head = serde_json::from_str(text).ok()?;
    let (namespace, name) = head.name.rsplit_once('/').unwrap_or(("", &head.name));
    Some(Package {
        kind: "npm",
        namespace: short(namespace),
        name: short(name),
        version: short(&head.version),
        license: short(head.license.as_str().unwrap_or_default()),
        ..Package::default()
    })
}

/// `NAME-VERSION[-PLATFORM].gemspec`
fn gem(path: &str) -> Option<Package> {
    let file = path.rsplit('/').next()?.strip_suffix(".gemspec")?;
    let is_version = |at: &usize| file[at + 1..].starts_with(|letter: char| letter.is_ascii_digit());
    let at = file.match_indices('-').map(|(at, _)| at).find(is_version)?;
    Some(Package { kind: "gem", name: short(&file[..at]), version: short(&file[at + 1..]), ..Package::default() })
}

impl Package {
    /// Its package URL (purl-spec).
    pub fn url(&self, distribution: &Distribution) -> String {
        let namespace = match self.namespace.as_str() {
            "" => String::new(),
            namespace => format!("{}/", escaped(namespace)),
        };
        let mut qualifiers = Vec::new();
        if !self.architecture.is_empty() {
            qualifiers.push(format!("arch={}", escaped(&self.architecture)));
        }
        if matches!(self.kind, "deb" | "apk") && !distribution.version.is_empty() {
            qualifiers.push(format!("distro={}", escaped(&format!("{}-{}", distribution.id, distribution.version))));
        }
        let behind = if qualifiers.is_empty() { String::new() } else { format!("?{}", qualifiers.join("&")) };
        format!("pkg:{}/{namespace}{}@{}{behind}", self.kind, escaped(&self.name), escaped(&self.version))
    }

    fn told(&self, number: usize, distribution: &Distribution) -> Value {
        let url = json!({
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": self.url(distribution),
        });
        let name = match self.namespace.starts_with('@') {
            true => format!("{}/{}", self.namespace, self.name),
            false => self.name.clone(),
        };
        let mut told = json!({
            "SPDXID": format!("SPDXRef-Package-{number}"),
            "name": name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "sourceInfo": format!("acquired package info from /{}", self.source),
            "licenseConcluded": "NOASSERTION",
            // What an author wrote need not be an expression of SPDX's.
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [url],
        });
        if !self.license.is_empty() {
            told["licenseComments"] = self.license.as_str().into();
        }
        told
    }
}

/// A document of all packages. `id` is the image's in hexadecimal, `created` in RFC 3339 to the second.
pub fn document(packages: &BTreeSet<Package>, distribution: &Distribution, id: &str, created: &str) -> Value {
    const ROOT: &str = "SPDXRef-DocumentRoot";
    let version = if distribution.version.is_empty() { "NOASSERTION" } else { &distribution.version };
    let name = [distribution.name.as_str(), &distribution.id].into_iter().find(|name| !name.is_empty());
    let mut all = vec![json!({
        "SPDXID": ROOT,
        "name": name.unwrap_or("image"),
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })];
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", ROOT)];
    for (number, package) in packages.iter().enumerate() {
        all.push(package.told(number, distribution));
        relations.push(relation(ROOT, "CONTAINS", &format!("SPDXRef-Package-{number}")));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "sbom",
        "documentNamespace": format!("https://spdx.org/spdxdocs/longshore-{id}"),
        "creationInfo": {
            "created": created,
            "creators": ["Organization: Longshore", concat!("Tool: longshore-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": all,
        "relationships": relations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(path: &str, text: &str) -> Vec<String> {
        let debian = distribution("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n");
        let record = record_at(path).unwrap();
        packages(record, path, text, &debian).iter().map(|package| package.url(&debian)).collect()
    }

    #[test]
    fn records_tell_of_packages() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.0+b1\nDescription: x\n y: z\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\n";
        let wanted = ["pkg:deb/debian/a@1:2.0%2Bb1?arch=amd64&distro=debian-12"];
        assert_eq!(urls("var/lib/dpkg/status", status), wanted);
        assert_eq!(
            urls("var/lib/dpkg/status.d/base", "Package: b\nVersion: 1\n"),
            ["pkg:deb/debian/b@1?distro=debian-12"]
        );
        let apk = "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:ld.so\n\nP:busybox\nV:1\n";
        let wanted =
            ["pkg:apk/debian/musl@1.2.5-r0?arch=x86_64&distro=debian-12", "pkg:apk/debian/busybox@1?distro=debian-12"];
        assert_eq!(urls("lib/apk/db/installed", apk), wanted);
        let head = "Metadata-Version: 2.1\nName: My_Thing\nVersion: 3\n\nName: body\nVersion: 0\n";
        assert_eq!(urls("usr/lib/python3/dist-packages/x.dist-info/METADATA", head), ["pkg:pypi/my-thing@3"]);
        let json = r#"{"name": "@s/n", "version": "1", "license": "MIT"}"#;
        assert_eq!(urls("app/node_modules/@s/n/package.json", json), ["pkg:npm/%40s/n@1"]);
        assert_eq!(urls("gems/specifications/a-b-1.2-x86.gemspec", ""), ["pkg:gem/a-b@1.2-x86"]);
        assert_eq!(urls("a/node_modules/n/package.json", "{"), [""; 0]);
    }

    #[test]
    fn other_files_are_no_records() {
        for path in ["status", "etc/status", "a/package.json", "node_modules/a/b/package.json", "x/METADATA"] {
            assert_eq!(record_at(path), None, "{path}");
        }
        assert_eq!(record_at("var/lib/dpkg/status.d/a.md5sums"), None);
        assert_eq!(record_at("node_modules/a/package.json"), Some(Record::Node));
    }

    #[test]
    fn a_document_has_all_of_them() {
        let package = Package { kind: "npm", name: "n".to_owned(), version: "1".to_owned(), ..Package::default() };
        let document = document(&BTreeSet::from([package]), &Distribution::default(), "00", "1970-01-01T00:00:00Z");
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        assert_eq!(document["packages"][1]["externalRefs"][0]["referenceLocator"], "pkg:npm/n@1");
        assert_eq!(document["relationships"][1]["relatedSpdxElement"], "SPDXRef-Package-0");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 2);
    }
}
