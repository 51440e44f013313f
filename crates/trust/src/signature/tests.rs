use std::io;

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;
use crate::policy::Policy;

/// What stands before the key in the DER of a public key of P-256.
const BEFORE: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Somebody who signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Signer {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Signer(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &SystemRandom::new()).unwrap())
    }

    fn pem(&self) -> String {
        let der = [BEFORE, self.0.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", encode(&der))
    }

    fn sign(&self, payload: &[u8]) -> Signature {
        let signature = self.0.sign(&SystemRandom::new(), payload).unwrap();
        Signature { payload: payload.to_vec(), signature: encode(signature.as_ref()) }
    }

    /// A policy that wants this one's signatures.
    fn policy(&self, identity: &str) -> Policy {
        let text = format!(
            r#"{{"default": [{{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {{"type": "{identity}"}}}}]}}"#
        );
        let pem = self.pem();
        Policy::parse(text.as_bytes(), &move |_| Ok::<_, io::Error>(pem.clone().into_bytes())).unwrap()
    }
}

fn payload(name: &str, digest: &Digest, kind: &str) -> Vec<u8> {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
    )
    .into_bytes()
}

fn digest(digit: &str) -> Digest {
    format!("sha256:{}", digit.repeat(64)).parse().unwrap()
}

const COSIGN: &str = "cosign container image signature";

#[test]
fn who_signed_the_right_thing_is_believed_and_nobody_else() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let policy = signer.policy("matchRepository");
    let asked: Reference = "r.io/a/b:1".parse().unwrap();
    let check = |signatures: &[Signature]| policy.of_registry(&asked).check(&asked, &digest("1"), signatures);
    let good = signer.sign(&payload("r.io/a/b", &digest("1"), COSIGN));
    assert_eq!(check(std::slice::from_ref(&good)), Ok(()));
    assert_eq!(check(&[]), Err(TrustError::NoSignature { scope: "default".into() }));
    let mut changed = good.clone();
    changed.payload[30] ^= 1;
    let no_json = signer.sign(b"{");
    let more = br#"{"critical":{"identity":{"docker-reference":"r.io/a/b"},"image":{},"type":"","more":1}}"#;
    for (bad, source) in [
        (changed, SignatureError::Key),
        (stranger.sign(&good.payload), SignatureError::Key),
        (Signature { signature: "~".into(), ..good.clone() }, SignatureError::Base64),
        (Signature { signature: String::new(), ..good.clone() }, SignatureError::Key),
        (Signature { signature: "A".repeat(4096), ..good.clone() }, SignatureError::TooLong),
        (Signature { payload: vec![b' '; PAYLOAD_MAX + 1], ..good.clone() }, SignatureError::TooLong),
        (no_json, SignatureError::Payload),
        (signer.sign(more), SignatureError::Payload),
        (signer.sign(&payload("r.io/a/b", &digest("1"), "a letter")), SignatureError::Payload),
        // GPG's kind of signature, made with a key of cosign's.
        (signer.sign(&payload("r.io/a/b", &digest("1"), "atomic container signature")), SignatureError::Payload),
        (signer.sign(&payload("r.io/a/b", &digest("2"), COSIGN)), SignatureError::Digest(digest("2").to_string())),
        (signer.sign(&payload("r.io/a/c", &digest("1"), COSIGN)), SignatureError::Identity("r.io/a/c".into())),
        (signer.sign(&payload("NONE", &digest("1"), COSIGN)), SignatureError::Identity("NONE".into())),
    ] {
        let refused = TrustError::NoGoodSignature { scope: "default".into(), count: 1, source };
        assert_eq!(check(std::slice::from_ref(&bad)), Err(refused));
        // One good one among bad ones does.
        assert_eq!(check(&[bad, good.clone()]), Ok(()));
    }
    let bad = stranger.sign(&good.payload);
    assert_eq!(check(&vec![bad; 70]), Err(TrustError::TooMany(65)));
}

#[test]
fn the_default_wants_the_tag_in_the_signature() {
    let signer = Signer::new();
    let policy = signer.policy("matchRepoDigestOrExact");
    let check = |asked: &str, signed: &str| {
        let asked: Reference = asked.parse().unwrap();
        let signature = signer.sign(&payload(signed, &digest("1"), COSIGN));
        policy.of_registry(&asked).check(&asked, &digest("1"), &[signature]).is_ok()
    };
    assert!(check("r.io/a:1", "r.io/a:1"));
    assert!(!check("r.io/a:1", "r.io/a:2") && !check("r.io/a:1", "r.io/a"));
    assert!(check(&format!("r.io/a@{}", digest("1")), "r.io/a:2"));
}

#[test]
fn all_requirements_must_be_met() {
    let (one, other) = (Signer::new(), Signer::new());
    let keys = [one.pem(), other.pem()];
    let text = br#"{"default": [
        {"type": "sigstoreSigned", "keyPath": "/0", "signedIdentity": {"type": "matchRepository"}},
        {"type": "sigstoreSigned", "keyPath": "/1", "signedIdentity": {"type": "matchRepository"}}
    ]}"#;
    let read = |path: &std::path::Path| Ok(keys[usize::from(path.ends_with("1"))].clone().into_bytes());
    let policy = Policy::parse(text, &read).unwrap();
    let asked: Reference = "r.io/a:1".parse().unwrap();
    let payload = payload("r.io/a", &digest("1"), COSIGN);
    let check = |signatures: &[Signature]| policy.of_registry(&asked).check(&asked, &digest("1"), signatures).is_ok();
    assert!(check(&[one.sign(&payload), other.sign(&payload)]));
    assert!(!check(&[one.sign(&payload)]) && !check(&[other.sign(&payload), other.sign(&payload)]));
}

#[test]
fn signatures_are_asked_for_until_nobody_is_missing() {
    let (one, other) = (Signer::new(), Signer::new());
    let policy = one.policy("matchRepository");
    let (asked, digest): (Reference, _) = ("r.io/a:1".parse().unwrap(), digest("1"));
    let payload = payload("r.io/a", &digest, COSIGN);
    let requirements = policy.of_registry(&asked);
    let mut check = requirements.begin(&asked, &digest);
    assert!(check.add(&other.sign(&payload)), "the right one is missing yet");
    assert!(!check.add(&one.sign(&payload)), "nobody is missing");
    assert_eq!(check.end(), Ok(()));
}

#[test]
fn a_signature_of_openssl_counts() {
    // Made by `openssl dgst -sha256 -sign`, as cosign and skopeo make them.
    let payload = include_bytes!("../../tests/keys/payload.json");
    let signature = include_str!("../../tests/keys/payload.sig.base64").trim().to_owned();
    let text =
        br#"{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "matchRepository"}}]}"#;
    let key = include_bytes!("../../tests/keys/p256.pub");
    let policy = Policy::parse(text, &|_| Ok(key.to_vec())).unwrap();
    let asked: Reference = "registry.example/app:1".parse().unwrap();
    let signature = Signature { payload: payload.to_vec(), signature };
    assert_eq!(policy.of_registry(&asked).check(&asked, &digest("a"), &[signature]), Ok(()));
}

proptest! {
    #[test]
    fn no_bytes_are_believed_or_stop_us(payload in any::<Vec<u8>>(), signature in "[A-Za-z0-9+/=]{0,120}") {
        let policy = Signer::new().policy("matchRepository");
        let asked: Reference = "r.io/a:1".parse().unwrap();
        let signature = Signature { payload, signature };
        prop_assert!(policy.of_registry(&asked).check(&asked, &digest("1"), &[signature]).is_err());
    }

    #[test]
    fn no_text_is_a_policy_by_chance(text in "\\PC*") {
        prop_assert!(Policy::parse(text.as_bytes(), &|_| Err(io::ErrorKind::NotFound.into())).is_err());
    }
}
