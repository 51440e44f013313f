use super::*;

fn document(header: &str, body: &str) -> Document {
    Document { digest: digest_of(body.as_bytes()), media_type: header.into(), bytes: body.into() }
}

#[test]
fn a_document_is_an_image_or_an_index_and_never_both() {
    let reference: Reference = "a/b:1".parse().unwrap();
    let descriptor = format!(r#"{{"mediaType":"x","size":1,"digest":"sha256:{:064x}"}}"#, 7);
    let image = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
    let typed = |body: &str, name: &str| body.replacen('{', &format!("{{\"mediaType\":\"{name}\","), 1);
    let both = image.replacen('{', "{\"manifests\":[],", 1);
    for (header, body, expected) in [
        (media_type::OCI_MANIFEST, &image, "image"),
        (media_type::DOCKER_LIST, &index, "index"),
        ("", &typed(&image, media_type::DOCKER_MANIFEST), "image"),
        ("application/json", &typed(&index, media_type::OCI_INDEX), "index"),
        (media_type::OCI_MANIFEST, &typed(&image, media_type::OCI_INDEX), "ambiguous"),
        (media_type::OCI_MANIFEST, &both, "ambiguous"),
        (media_type::OCI_INDEX, &both, "ambiguous"),
        (media_type::OCI_MANIFEST, &index, "ambiguous"),
        ("text/html", &image, "format"),
        ("", &image, "format"),
        (media_type::OCI_MANIFEST, &"{garbage".to_owned(), "decode"),
        (SCHEMA1_TYPES[0], &"{}".to_owned(), "schema1"),
        ("", &"{\"schemaVersion\":1}".to_owned(), "schema1"),
    ] {
        let found = match kind(&reference, &document(header, body)) {
            Ok(Kind::Image(_)) => "image",
            Ok(Kind::Index(_)) => "index",
            Err(RegistryError::Ambiguous { .. }) => "ambiguous",
            Err(RegistryError::Format) => "format",
            Err(RegistryError::Schema1 { .. }) => "schema1",
            Err(_) => "decode",
        };
        assert_eq!(found, expected, "{header} {body}");
    }
}

#[test]
fn errors_of_registries_read_as_in_docker() {
    for (status, body, expected) in [
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
            "manifest unknown: manifest unknown",
        ),
        (
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
            "name unknown",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down","detail":null}]}"#,
            "toomanyrequests: slow down",
        ),
        (404, "nothing here", "unknown: nothing here"),
        // What stands before a registry mostly speaks no JSON.
        (401, "who are you?", "unauthorized: who are you?"),
        (403, "<html>no</html>", "denied: <html>no</html>"),
        (429, "slow down", "toomanyrequests: slow down"),
    ] {
        let answer = answer(StatusCode::from_u16(status).unwrap(), body.as_bytes()).unwrap();
        assert_eq!(answer.to_string(), expected);
    }
    assert_eq!(answer(StatusCode::NOT_FOUND, b"{\"errors\":[]}"), None);
}

#[test]
fn the_next_page_is_on_the_same_registry() {
    for (link, expected) in [
        ("</v2/a/tags/list?last=x&n=2>; rel=\"next\"", Some("/v2/a/tags/list?last=x&n=2")),
        ("<http://169.254.169.254/>; rel=\"next\"", None),
        ("<//evil/v2/>; rel=next", None),
        ("</v2/a>; rel=\"prev\"", None),
    ] {
        let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
        assert_eq!(next_page(&headers).as_deref(), expected, "{link}");
    }
}

#[test]
fn slow_manifests_of_any_shape_are_an_image_or_an_index_or_refused() {
    let reference: Reference = "a/b:1".parse().unwrap();
    let types = [
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_LIST,
        media_type::OCI_CONFIG,
        SCHEMA1_TYPES[0],
        "application/json",
        "",
    ];
    let descriptor = serde_json::json!({
        "mediaType": LAYER_TYPES[0], "size": 1, "digest": format!("sha256:{:064x}", 7), "urls": ["http://a"],
        "platform": {"architecture": "amd64", "os": "linux", "variant": ""}, "annotations": {"a": "b"},
    });
    let documents = [
        serde_json::json!({"schemaVersion": 2, "mediaType": "", "config": descriptor, "layers": [descriptor, descriptor]}),
        serde_json::json!({"schemaVersion": 2, "mediaType": "", "manifests": [descriptor, descriptor], "annotations": {}}),
    ];
    let (mut images, mut indexes) = (0, 0);
    testkit::mutate::rounds(|mutator| {
        let mut value = mutator.pick(&documents).clone();
        value["mediaType"] = (*mutator.pick(&types)).into();
        let text = mutator.json(&value).to_string().into_bytes();
        let text = if mutator.once_in(4) { mutator.bytes(&text) } else { text };
        let header = *mutator.pick(&types);
        let has = |field: &str| text.windows(field.len()).any(|window| window == field.as_bytes());
        let document = Document { digest: digest_of(&text), media_type: header.into(), bytes: text.clone() };
        match kind(&reference, &document) {
            Ok(Kind::Image(manifest)) => {
                images += 1;
                assert!(has("\"layers\"") && has("\"config\""), "{}", String::from_utf8_lossy(&text));
                // Whatever it says, it is an answer.
                let _: Result<(), RegistryError> = check_types(&manifest, header, None);
            }
            Ok(Kind::Index(index)) => {
                indexes += 1;
                assert!(has("\"manifests\"") && !has("\"layers\""), "{}", String::from_utf8_lossy(&text));
                let chosen = Wanted::host().choose(&index.manifests);
                assert!(chosen.len() <= index.manifests.len());
            }
            Err(err) => assert!(!err.to_string().is_empty()),
        }
    });
    assert!(images > 0 && indexes > 0, "{images} images, {indexes} indexes");
}
