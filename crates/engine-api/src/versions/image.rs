//! What older clients are told of images.

use serde::Serialize;
use serde_json::{Value, json};

use super::ApiVersion;
use crate::container::Config;
use crate::image::{Inspect, Summary};

/// An image as a version of the API tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ImageAnswer<T> {
    /// As it is.
    Current(T),
    /// With what has been left out since.
    Old(Value),
}

/// Lowers listed images to `version` (moby `getImagesJSON`).
pub fn downgrade_images(version: ApiVersion, images: Vec<Summary>) -> Vec<ImageAnswer<Summary>> {
    images.into_iter().map(|image| downgrade_listed_image(version, image)).collect()
}

fn downgrade_listed_image(version: ApiVersion, mut image: Summary) -> ImageAnswer<Summary> {
    // Counting containers came with 1.51.
    if version.before(51) {
        image.containers = -1;
    }
    if !version.before(44) {
        return ImageAnswer::Current(image);
    }
    let mut old = object(&image);
    // The size was told twice.
    old["VirtualSize"] = image.size.into();
    if version.before(43) {
        match (image.repo_tags.is_empty(), image.repo_digests.is_empty()) {
            (true, true) => {
                old["RepoTags"] = json!(["<none>:<none>"]);
                old["RepoDigests"] = json!(["<none>@<none>"]);
            }
            (true, false) => old["RepoTags"] = Value::Null,
            (false, true) => old["RepoDigests"] = Value::Null,
            (false, false) => {}
        }
    }
    ImageAnswer::Old(old)
}

/// Lowers an inspected image to `version` (moby `getImagesByName`).
pub fn downgrade_image(version: ApiVersion, image: Inspect) -> ImageAnswer<Inspect> {
    if !version.before(50) {
        return ImageAnswer::Current(image);
    }
    let mut old = object(&image);
    if let Value::Object(config) = &mut old["Config"] {
        // Fields of containers, which no image has.
        for name in ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"] {
            config.insert(name.to_owned(), false.into());
        }
        for name in ["Domainname", "Hostname", "Image"] {
            config.insert(name.to_owned(), "".into());
        }
    }
    // The container that an image was committed from. Nothing is known of it.
    if version.before(45) {
        old["ContainerConfig"] = object(&Config::default());
    }
    if version.before(44) {
        old["VirtualSize"] = image.size.into();
        old["Created"] = image.created.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()).into();
    }
    ImageAnswer::Old(old)
}

fn object(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("wire types have string keys and cannot fail to serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_see_images_as_they_were() {
        let image = Summary { size: 5, containers: 2, ..Default::default() };
        let told = |version: &str, image: &Summary| {
            let images = downgrade_images(version.parse().unwrap(), vec![image.clone()]);
            serde_json::to_value(images).unwrap()[0].clone()
        };
        let newest = told("1.51", &image);
        assert_eq!((&newest["Containers"], &newest["RepoTags"]), (&2.into(), &json!([])));
        assert!(newest.get("VirtualSize").is_none());
        let old = told("1.42", &image);
        assert_eq!((&old["VirtualSize"], &old["Size"], &old["Containers"]), (&5.into(), &5.into(), &(-1).into()));
        assert_eq!(old["RepoTags"][0], "<none>:<none>");
        let tagged = Summary { repo_tags: vec!["a:b".to_owned()], ..image };
        assert_eq!(told("1.42", &tagged)["RepoDigests"], Value::Null);
        assert_eq!(told("1.43", &tagged)["RepoDigests"], json!([]));
    }

    #[test]
    fn old_clients_see_the_defaults_of_images_among_those_of_containers() {
        let image = Inspect { size: 5, config: Some(Default::default()), ..Inspect::default() };
        let told = |minor, pointer: &str| {
            let answer = downgrade_image(ApiVersion { major: 1, minor }, image.clone());
            serde_json::to_value(answer).unwrap().pointer(pointer).cloned()
        };
        for (since, pointer, old) in [
            (44, "/VirtualSize", json!(5)),
            (44, "/Created", json!("0001-01-01T00:00:00Z")),
            (45, "/ContainerConfig/Tty", json!(false)),
            (45, "/ContainerConfig/Cmd", json!(null)),
            (50, "/Config/AttachStdin", json!(false)),
            (50, "/Config/Hostname", json!("")),
        ] {
            assert_eq!(told(since - 1, pointer), Some(old), "before 1.{since}: {pointer}");
            assert_eq!(told(since, pointer), None, "1.{since}: {pointer}");
        }
    }
}
