use super::*;

const PEM: &str = include_str!("../../tests/keys/p256.pub");

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes(), &|path| match path.to_str() {
        Some("/keys/p256.pub") => Ok(PEM.as_bytes().to_vec()),
        Some("/keys/none.pub") => Ok(b"none".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

const POLICY: &str = r#"{
  "default": [{"type": "reject"}],
  "transports": {
    "docker": {
      "": [{"type": "insecureAcceptAnything"}],
      "docker.io": [{"type": "reject"}],
      "docker.io/library": [{"type": "sigstoreSigned", "keyPath": "/keys/p256.pub"}],
      "docker.io/library/busybox": [{"type": "insecureAcceptAnything"}],
      "docker.io/library/busybox:bad": [{"type": "reject"}],
      "r.example.com:5000": [{"type": "reject"}],
      "*.example.com": [{"type": "sigstoreSigned", "keyPaths": ["/keys/p256.pub"],
                         "signedIdentity": {"type": "matchRepository"}}]
    },
    "dir": {"": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere"}]}
  }
}"#;

#[test]
fn the_narrowest_scope_counts() {
    let policy = parse(POLICY).unwrap();
    for (name, scope) in [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1", "docker.io/library/busybox"),
        ("busybox:bad", "docker.io/library/busybox:bad"),
        ("alpine", "docker.io/library"),
        ("a/b", "docker.io"),
        ("r.example.com:5000/a/b", "r.example.com:5000"),
        ("s.example.com/a", "*.example.com"),
        ("s.t.example.com/a", "*.example.com"),
        ("s.example.com:5000/a", "*.example.com"),
        ("S.Example.com:443/a", "*.example.com"),
        ("registry-1.docker.io/library/alpine", "docker.io/library"),
        ("registry-1.docker.io:443/library/busybox:bad", "docker.io/library/busybox:bad"),
        (&format!("busybox:bad@sha256:{}", "1".repeat(64)), "docker.io/library/busybox:bad"),
        ("example.com/a", "docker"),
        ("other.org/a", "docker"),
    ] {
        assert_eq!(policy.of_registry(&name.parse().unwrap()).scope, scope, "{name}");
    }
    assert_eq!(policy.of_archive().scope, "default");
    let signed = policy.of_registry(&"alpine".parse().unwrap());
    assert!(signed.wants_signatures());
    let Requirement::Signed(by) = &signed.list[0] else { panic!("{signed:?}") };
    assert_eq!((by.keys.len(), &by.identity), (1, &Identity::RepositoryDigestOrExact));
    assert!(!policy.of_registry(&"a/b".parse().unwrap()).wants_signatures());
}

#[test]
fn a_key_may_stand_in_the_file_itself() {
    // base64 of the PEM, as containers/image has it.
    let coded = include_str!("../../tests/keys/p256.pub.base64").trim();
    let by_data = parse(&format!(r#"{{"default": [{{"type": "sigstoreSigned", "keyData": "{coded}"}}]}}"#)).unwrap();
    let by_path = parse(r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/keys/p256.pub"}]}"#).unwrap();
    assert_eq!(by_data, by_path);
}

#[test]
fn mistakes_are_named() {
    let signed = |more: &str| format!(r#"{{"default": [{{"type": "sigstoreSigned"{more}}}]}}"#);
    let path = r#", "keyPath": "/keys/p256.pub""#;
    for (text, sentence) in [
        ("{", "parse the policy"),
        ("{}", "the policy has no default"),
        (r#"{"default": []}"#, "the policy has no default"),
        (r#"{"default": [{"type": "reject"}], "more": 1}"#, "parse the policy"),
        (r#"{"default": [{"type": "reject", "more": 1}]}"#, "parse the policy"),
        (r#"{"default": [{"type": "maybe"}]}"#, "default: requirements of type \"maybe\" are not known"),
        (r#"{"default": [{}]}"#, "default: requirements of type \"\" are not known"),
        (r#"{"default": [1]}"#, "default: requirements of type \"\" are not known"),
        (
            r#"{"default": [{"type": "reject"}], "transports": {"docker": {"r.io": []}}}"#,
            "the requirements of r.io are empty: insecureAcceptAnything says that everything may come",
        ),
        (r#"{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}"#, "parse the policy"),
        (r#"{"default": [{"type": "reject", "type": "insecureAcceptAnything"}]}"#, "parse the policy"),
        (
            r#"{"default": [{"type": "reject"}], "transports": {"docker": {"r.io": [{"type": "reject"}], "R.io:443": [{"type": "reject"}]}}}"#,
            "r.io is said twice, in two spellings",
        ),
        (
            r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}]}"#,
            "default: signedBy, a signature of GPG, cannot be checked here: sigstoreSigned with keyPath or keyData can",
        ),
        (&signed(""), "default: sigstoreSigned wants exactly one of keyPath, keyPaths, keyData and keyDatas"),
        (&signed(r#", "keyPath": "/a", "keyData": "b""#), "default: sigstoreSigned wants exactly one of "),
        (&signed(r#", "keyPaths": []"#), "default: sigstoreSigned wants exactly one of "),
        (&signed(r#", "keyPath": "/keys/absent""#), "default: read the key /keys/absent"),
        (&signed(r#", "keyPath": "/keys/none.pub""#), "default: read a key"),
        (&signed(r#", "keyData": "%%""#), "default: keyData is no base64"),
        (&signed(r#", "fulcio": {}"#), "default: fulcio cannot be checked here"),
        (&signed(&format!(r#"{path}, "rekorPublicKeyPath": "/x""#)), "default: rekorPublicKey cannot be checked here"),
        (&signed(&format!(r#"{path}, "signedIdentity": {{"type": "any"}}"#)), "parse the policy"),
        (
            &signed(&format!(r#"{path}, "signedIdentity": {{"type": "exactReference", "dockerReference": "A"}}"#)),
            "default: \"A\" is no name of an image",
        ),
    ] {
        let refused = parse(text).unwrap_err().to_string();
        assert!(refused.starts_with(sentence), "{text}: {refused}");
    }
}

#[test]
fn one_key_twice_is_a_mistake_wherever_it_stands() {
    let reject = r#"[{"type": "reject"}]"#;
    let docker = |scopes: &str| format!(r#"{{"default": {reject}, "transports": {{"docker": {{{scopes}}}}}}}"#);
    let scope = |list: &str| format!(r#""r.io": {list}"#);
    assert!(parse(&docker(&scope(reject))).is_ok());
    let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
    let twice = parse(&docker(&format!("{}, {}", scope(reject), scope(accept)))).unwrap_err();
    let why = errdefs::chain(&twice);
    assert!(why.contains("the key \"r.io\" stands there twice"), "{why}");
}

#[test]
fn what_no_image_is_asked_for_is_told() {
    let reject = r#"[{"type": "reject"}]"#;
    assert_eq!(parse(POLICY).unwrap().idle(), [""; 0]);
    let text = format!(
        r#"{{"default": {reject}, "transports": {{
            "dokcer": {{"": {reject}}}, "docker": {{"busybox": {reject}}}, "docker-archive": {{"/a.tar": {reject}}}}}}}"#
    );
    assert_eq!(
        parse(&text).unwrap().idle(),
        [
            "no image is of the scope \"busybox\" of docker",
            "no image is of the scope \"/a.tar\" of docker-archive",
            "nothing comes by the transport \"dokcer\": is it docker or docker-archive?",
        ]
    );
}
