//! Which images run on which machine: processors run programs of their older variants, too. Pure, but for the processor's
//! own variant.

use std::sync::Arc;

use errdefs::ErrorKind;
use image::ImageRecord;
use oci::image::Platform;
use registry_client::processor;

/// What a name stands for is for another platform than the wanted one. The text is dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image with reference {image} was found but its platform ({found}) does not match the specified platform ({wanted})"
)]
pub struct PlatformMismatch {
    /// The image, as the user named it.
    image: String,
    /// The image's.
    found: String,
    /// The request's.
    wanted: String,
}

impl PlatformMismatch {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::NotFound
    }
}

/// Of the images that a name stands for, the first of which is what it means, the one for a platform: rather one that says
/// so than one that does not say its variant. Without a wish the first.
pub(crate) fn choose(
    images: &[Arc<ImageRecord>],
    name: &str,
    wanted: Option<&str>,
) -> Result<Arc<ImageRecord>, PlatformMismatch> {
    let found = match wanted.filter(|wanted| !wanted.is_empty()) {
        None => images.first(),
        Some(wanted) => best(images, |image| &image.config.platform, wanted),
    };
    match found {
        Some(image) => Ok(Arc::clone(image)),
        None => {
            let meant = images.first().expect("a name that stands for nothing was refused before");
            check(wanted, name, meant).map(|()| Arc::clone(meant))
        }
    }
}

/// An image of another platform than the wanted one is as good as none. Only the parts that the request states are compared.
pub(crate) fn check(wanted: Option<&str>, name: &str, image: &ImageRecord) -> Result<(), PlatformMismatch> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let platform = &image.config.platform;
    if fits(wanted, platform) {
        return Ok(());
    }
    let found = format!("{}/{}", platform.os, platform.architecture);
    Err(PlatformMismatch { image: name.to_owned(), found, wanted: wanted.to_owned() })
}

/// The first that fits, rather one that says so than one that does not say its variant.
fn best<'a, T>(all: &'a [T], platform: impl Fn(&T) -> &Platform, wanted: &str) -> Option<&'a T> {
    let fitting = || all.iter().filter(|one| fits(wanted, platform(one)));
    let says_so = fitting().find(|one| !platform(one).variant.is_empty());
    says_so.filter(|_| states_variant(wanted)).or_else(|| fitting().next())
}

/// Whether an image is for `os[/architecture[/variant]]`, as far as that and the image say. An image that does not say its
/// variant may be of any.
fn fits(wanted: &str, image: &Platform) -> bool {
    let (os, architecture, variant) = parts(wanted);
    let (asked, found) = (processor(architecture, variant), processor(&image.architecture, &image.variant));
    let any = image.architecture.is_empty() || architecture.is_empty();
    (image.os.is_empty() || os == image.os)
        && (any || asked == found || asked.0 == found.0 && (image.variant.is_empty() || !states_variant(wanted)))
}

fn parts(wanted: &str) -> (&str, &str, &str) {
    let mut parts = wanted.split('/');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// Whether it says a variant; these two names of processors do.
fn states_variant(wanted: &str) -> bool {
    let (_, architecture, variant) = parts(wanted);
    !variant.is_empty() || matches!(architecture, "armhf" | "armel")
}

/// What this machine runs at most, as dockerd tells it.
pub(crate) fn of_machine() -> Platform {
    let variant = variant_of_machine().to_owned();
    Platform {
        architecture: image::host_architecture().to_owned(),
        os: "linux".to_owned(),
        variant,
        ..Platform::default()
    }
}

/// The microarchitecture level (x86-64 psABI, "Microarchitecture Levels").
#[cfg(target_arch = "x86_64")]
fn variant_of_machine() -> &'static str {
    macro_rules! all {
        ($($feature:tt)*) => { true $(&& std::is_x86_feature_detected!($feature))* };
    }
    match () {
        () if !all!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3") => "v1",
        () if !all!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe") => "v2",
        () if !all!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl") => "v3",
        () => "v4",
    }
}

/// Of 64-bit ARM every variant is told as the first one.
#[cfg(not(target_arch = "x86_64"))]
fn variant_of_machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "v8" } else { "" }
}

/// `linux/arm/v7`.
pub(crate) fn shown(platform: &Platform) -> String {
    let os = if platform.os.is_empty() { "unknown" } else { &platform.os };
    let parts = [os, &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// Whether a machine of this platform runs an image of that one. An image that does not say its variant may be of any.
pub(crate) fn runs(machine: &Platform, image: &Platform) -> bool {
    let found = processor(&image.architecture, &image.variant);
    // Images that say nothing were made for whatever machine that was.
    let says = |own: &str, machine: &str| own.is_empty() || own == machine;
    let own = processor(&machine.architecture, &machine.variant);
    says(&image.os, &machine.os)
        && (image.architecture.is_empty()
            || vector(&own).iter().any(|runs| processor(&runs.0, &runs.1) == found)
            || image.variant.is_empty() && found.0 == own.0)
}

/// Whether an image is for that platform and no other (containerd platforms, `OnlyStrict`).
pub(crate) fn is_exactly(wanted: &Platform, image: &Platform) -> bool {
    wanted.os.eq_ignore_ascii_case(&image.os)
        && processor(&wanted.architecture, &wanted.variant) == processor(&image.architecture, &image.variant)
}

/// What a user is told who runs an image for another machine without asking for that.
pub(crate) fn warning(image: &Platform) -> Option<String> {
    let machine = of_machine();
    (!runs(&machine, image)).then(|| {
        format!(
            "The requested image's platform ({}) does not match the detected host platform ({}) and no specific platform \
             was requested",
            shown(image),
            shown(&machine)
        )
    })
}

type Processor = (String, String);

/// The processor and all that it runs programs of (containerd platforms, `platformVector`).
fn vector((architecture, variant): &Processor) -> Vec<Processor> {
    let one = |variant: String| (architecture.clone(), variant);
    let number: Option<u32> = variant.strip_prefix('v').and_then(|number| number.parse().ok());
    match architecture.as_str() {
        "amd64" => {
            let below = (1..number.unwrap_or(1)).map(|level| one(format!("v{level}")));
            below.chain([one(variant.clone()), ("386".to_owned(), String::new())]).collect()
        }
        "arm" => {
            let below = (5..number.unwrap_or(5)).map(|version| one(format!("v{version}")));
            below.chain([one(variant.clone())]).collect()
        }
        "arm64" => {
            let variant = if variant.is_empty() { "v8" } else { variant };
            let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
            let minor: u32 = minor.parse().unwrap_or_default();
            let mut all: Vec<Processor> = (0..=minor).map(|minor| one(format!("{major}.{minor}"))).collect();
            if major == "v9" {
                // Version 9 has all that 8.5 has, and so on.
                all.extend((0..=minor + 5).map(|minor| one(format!("v8.{minor}"))));
            }
            all.push(one(variant.to_owned()));
            all.extend(vector(&("arm".to_owned(), "v8".to_owned())));
            all
        }
        _ => vec![one(variant.clone())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (os, architecture, variant) = (next(), next(), next());
        Platform { os, architecture, variant, ..Platform::default() }
    }

    #[test]
    fn a_wish_is_compared_by_whatever_name_a_processor_goes() {
        for (wanted, image, fitting) in [
            ("linux", "linux/arm64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v3", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/aarch64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64/v9", false),
            ("linux/armhf", "linux/arm/v7", true),
            ("linux/armhf", "linux/arm/v6", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm64", "/", true),
            ("linux/arm64", "linux/amd64", false),
            ("windows/amd64", "linux/amd64", false),
        ] {
            assert_eq!(fits(wanted, &platform(image)), fitting, "{image} for {wanted}");
        }
        let all = ["linux/amd64", "linux/arm", "linux/arm/v6", "linux/arm/v7"].map(platform);
        for (wanted, chosen) in [
            ("linux/arm/v7", Some(3)),
            ("linux/armel", Some(2)),
            ("linux/arm/v8", Some(1)),
            ("linux/arm", Some(1)),
            ("linux/s390x", None),
        ] {
            assert_eq!(best(&all, |one| one, wanted), chosen.map(|index: usize| &all[index]), "{wanted}");
        }
    }

    #[test]
    fn machines_run_images_of_their_older_variants() {
        for (machine, image, wanted) in [
            ("linux/amd64/v4", "linux/amd64", true),
            ("linux/amd64/v4", "linux/amd64/v1", true),
            ("linux/amd64/v4", "linux/amd64/v3", true),
            ("linux/amd64/v2", "linux/amd64/v3", false),
            ("linux/amd64", "linux/386", true),
            ("linux/amd64/v4", "linux/arm64", false),
            ("linux/amd64/v4", "windows/amd64", false),
            ("linux/amd64/v4", "linux/x86_64", true),
            ("linux/amd64", "/", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64/v8", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64/v8.1", false),
            ("linux/arm64/v8.2", "linux/arm64/v8.1", true),
            ("linux/arm64/v9", "linux/arm64/v8.5", true),
            ("linux/arm64", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v6", "linux/arm", true),
            ("linux/riscv64", "linux/riscv64", true),
        ] {
            assert_eq!(runs(&platform(machine), &platform(image)), wanted, "{image} on {machine}");
        }
        assert!(runs(&of_machine(), &Platform { variant: String::new(), ..of_machine() }));
        assert_eq!(shown(&platform("linux/arm/v7")), "linux/arm/v7");
        assert_eq!(shown(&platform("/arm64")), "unknown/arm64");
    }
}
