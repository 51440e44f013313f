//! Archives for the tests, in the shapes that real programs write.

use std::io::Write;

use oci::Digest;
use serde_json::json;
use sha2::Digest as _;

pub(crate) type Files = Vec<(String, Vec<u8>)>;
pub(crate) type Compress = fn(&[u8]) -> Vec<u8>;

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&sha2::Sha256::digest(bytes).into())
}

pub(crate) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        if let Some(target) = data.strip_prefix(b"link:") {
            header.set_size(0);
            header.set_entry_type(tar::EntryType::Symlink);
            let target = std::str::from_utf8(target).unwrap();
            builder.append_link(&mut header, path, target).unwrap();
        } else {
            builder.append_data(&mut header, path, &data[..]).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    tar(&files.iter().map(|(path, data)| ((*path).to_owned(), data.as_bytes().to_vec())).collect::<Vec<_>>())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Written by hand: the order of a JSON value's names is another one where any crate that is built beside this one wants
/// them kept, and digests stand in tests.
pub(crate) fn config(layers: &[Vec<u8>], note: &str) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest(layer)).collect();
    let (note, diff_ids) = (json!(note), json!(diff_ids));
    let head = format!(r#"{{"architecture":"amd64","author":{note},"config":{{"Cmd":["sh"],"Env":null,"Unknown":1}},"#);
    let rest = r#""created":"2026-01-01T00:00:00Z","history":[{"created_by":"x","empty_layer":true}],"os":"linux","#;
    format!(r#"{head}{rest}"rootfs":{{"diff_ids":{diff_ids},"type":"layers"}}}}"#).into_bytes()
}

/// As `docker save` wrote it before 25: the manifest last, layers below directories.
pub(crate) fn docker(name: Option<&str>, layers: &[Vec<u8>], note: &str) -> Files {
    docker_with(name, layers, &config(layers, note))
}

pub(crate) fn docker_with(name: Option<&str>, layers: &[Vec<u8>], config: &[u8]) -> Files {
    let config_path = format!("{}.json", digest(config).hex());
    let path = |index: usize, layer: &[u8]| format!("{}{index}/layer.tar", digest(layer).hex());
    let paths: Vec<String> = layers.iter().enumerate().map(|(index, layer)| path(index, layer)).collect();
    let manifest = json!([{ "Config": config_path, "RepoTags": name.map(|name| [name]), "Layers": paths }]);
    let mut files: Files = paths.into_iter().zip(layers.iter().cloned()).collect();
    files.push((config_path, config.to_vec()));
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    files
}

fn blob(files: &mut Files, bytes: &[u8]) -> serde_json::Value {
    files.push((format!("blobs/sha256/{}", digest(bytes).hex()), bytes.to_vec()));
    json!({ "mediaType": "x", "digest": digest(bytes), "size": bytes.len() })
}

/// An OCI layout, the image one index below the layout's own.
pub(crate) fn layout(name: &str, layers: &[Vec<u8>], compress: Compress, note: &str) -> Files {
    let mut files = vec![("oci-layout".into(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
    let config = blob(&mut files, &config(layers, note));
    let layers: Vec<_> = layers.iter().map(|layer| blob(&mut files, &compress(layer))).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let mut ours = blob(&mut files, manifest.as_bytes());
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    ours["platform"] = json!({ "os": "linux", "architecture": architecture });
    let mut other = ours.clone();
    other["digest"] = json!(digest(b"absent"));
    other["platform"]["architecture"] = json!("s390x");
    let index = json!({ "schemaVersion": 2, "manifests": [other, ours] }).to_string();
    let mut top = blob(&mut files, index.as_bytes());
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    files.push(("index.json".into(), json!({ "schemaVersion": 2, "manifests": [top] }).to_string().into_bytes()));
    files
}
