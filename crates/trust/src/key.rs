//! Public keys.

use errdefs::ErrorKind;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::base64;

/// The longest file that a key is looked for in.
const PEM_MAX: usize = 64 << 10;

/// Where the key stands in the DER of a SubjectPublicKeyInfo (RFC 5280, 4.1): what comes before it is the same for all keys
/// of an algorithm (RFC 5480, RFC 8410), so that it need not be parsed.
const FORMS: [Form; 3] = [
    Form {
        name: "ECDSA P-256",
        before:
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        length: 65,
        algorithm: &signature::ECDSA_P256_SHA256_ASN1,
    },
    Form {
        name: "ECDSA P-384",
        before: b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        length: 97,
        algorithm: &signature::ECDSA_P384_SHA256_ASN1,
    },
    Form {
        name: "Ed25519",
        before: b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        length: 32,
        algorithm: &signature::ED25519,
    },
];

struct Form {
    name: &'static str,
    before: &'static [u8],
    length: usize,
    algorithm: &'static dyn VerificationAlgorithm,
}

/// A key that images may be signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which of the forms.
    form: usize,
    bytes: Vec<u8>,
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM of a public key in it.
    #[error("there is no PUBLIC KEY in PEM")]
    Pem,
    /// There is something between the lines of PEM that is no base64.
    #[error("its base64 is damaged")]
    Base64,
    /// The key is of a kind that we cannot check signatures with.
    #[error("it is no key of ECDSA P-256, ECDSA P-384 or Ed25519")]
    Kind,
}

impl KeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Key {
    /// Reads `-----BEGIN PUBLIC KEY-----`.
    pub fn parse(pem: &[u8]) -> Result<Key, KeyError> {
        let text = std::str::from_utf8(pem.get(..PEM_MAX).unwrap_or(pem)).map_err(|_| KeyError::Pem)?;
        let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----").ok_or(KeyError::Pem)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(KeyError::Pem)?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = base64::decode(&body).ok_or(KeyError::Base64)?;
        let fits = |form: &Form| der.starts_with(form.before) && der.len() == form.before.len() + form.length;
        let form = FORMS.iter().position(fits).ok_or(KeyError::Kind)?;
        Ok(Key { form, bytes: der[FORMS[form].before.len()..].to_vec() })
    }

    /// What it is called.
    pub fn algorithm(&self) -> &'static str {
        FORMS[self.form].name
    }

    /// Whether whoever has the private half signed `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(FORMS[self.form].algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -name prime256v1 -genkey`, and its like.
    const KEYS: [(&str, &str); 3] = [
        ("ECDSA P-256", P256_PEM),
        ("ECDSA P-384", include_str!("../tests/keys/p384.pub")),
        ("Ed25519", include_str!("../tests/keys/ed25519.pub")),
    ];

    const P256_PEM: &str = include_str!("../tests/keys/p256.pub");
    const RSA_PEM: &str = include_str!("../tests/keys/rsa.pub");

    #[test]
    fn keys_of_openssl_are_known_by_their_kind() {
        for (name, pem) in KEYS {
            assert_eq!(Key::parse(pem.as_bytes()).unwrap().algorithm(), name);
            let inside = format!("a comment\n{pem}\nmore");
            assert!(Key::parse(inside.as_bytes()).is_ok());
        }
    }

    #[test]
    fn what_is_no_key_is_told() {
        let damaged = P256_PEM.replacen("MFkw", "M~kw", 1);
        let other_curve = P256_PEM.replacen("MFkwEwYHKoZIzj0CAQYI", "MFkwEwYHKoZIzj0CAQYJ", 1);
        for (text, error) in [
            ("", KeyError::Pem),
            ("-----BEGIN PUBLIC KEY-----\n", KeyError::Pem),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", KeyError::Pem),
            ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", KeyError::Kind),
            (RSA_PEM, KeyError::Kind),
            (damaged.as_str(), KeyError::Base64),
            (other_curve.as_str(), KeyError::Kind),
        ] {
            assert_eq!(Key::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(Key::parse(&[0xff; 10]), Err(KeyError::Pem));
    }
}
