//! Private keys of ssh in files: OpenSSH's format (its PROTOCOL.key), and PEM (RFC 7468: PKCS #1, PKCS #8, SEC 1).
//!
//! They sign, and nobody is told them. Encrypted ones are refused, as buildx does: whoever has one gives it to an agent.

use std::fmt;
use std::sync::Arc;

use engine_api::auth::decode as base64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

/// What OpenSSH's own format begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// How an agent is asked for the hash of a signature by RSA (draft-miller-ssh-agent, 5.3).
const SHA_256: u32 = 2;
const SHA_512: u32 = 4;

/// A curve of ECDSA: its name, its object identifier in DER (RFC 5480), how long its numbers are in bytes.
struct Curve {
    name: &'static str,
    oid: &'static [u8],
    length: usize,
    algorithm: &'static EcdsaSigningAlgorithm,
}

static CURVES: [Curve; 2] = [
    Curve {
        name: "nistp256",
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        length: 32,
        algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING,
    },
    Curve { name: "nistp384", oid: &[0x2b, 0x81, 4, 0, 0x22], length: 48, algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING },
];

/// Why a file has no key for us. The first three sentences are those of Go's `ssh`, which buildx tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none in it.
    #[error("ssh: no key found")]
    None,
    /// It is encrypted.
    #[error("ssh: this private key is passphrase protected")]
    Encrypted,
    /// Its label says something else.
    #[error("ssh: unsupported key type {0:?}")]
    Label(String),
    /// We cannot sign with such a key.
    #[error("keys of type {0} are not supported here: add it to an agent")]
    Type(String),
    /// It is damaged, or of a size with which we cannot sign.
    #[error("the key is damaged, or has another size than an agent of ours takes (RSA: 2048 to 4096 bits)")]
    Damaged,
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(&'static Curve, EcdsaKeyPair),
}

/// A key.
struct Key {
    /// Its public half, as ssh has it (RFC 4253, 6.6).
    public: Vec<u8>,
    secret: Secret,
}

/// Keys with which an agent of ours signs.
#[derive(Clone)]
pub struct Keyring(Arc<Vec<Key>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.0.len()).finish()
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Keyring) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Keyring {}

impl Keyring {
    /// The keys of some files' texts.
    pub fn of(texts: &[Vec<u8>]) -> Result<Keyring, KeyError> {
        let keys = texts.iter().map(|text| parse(&String::from_utf8_lossy(text)));
        Ok(Keyring(Arc::new(keys.collect::<Result<_, _>>()?)))
    }

    /// Their public halves, in order.
    pub(super) fn public(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|key| &key.public[..])
    }

    /// A signature as ssh has it; `flags` is how an agent is asked for one. `None` for a key that is none of these, and for the
    /// hash SHA-1, which nothing takes any more.
    pub(super) fn sign(&self, public: &[u8], data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let key = self.0.iter().find(|key| key.public == public)?;
        let random = SystemRandom::new();
        let mut signature = Vec::new();
        match &key.secret {
            Secret::Ed25519(pair) => {
                put(&mut signature, b"ssh-ed25519");
                put(&mut signature, pair.sign(data).as_ref());
            }
            Secret::Rsa(pair) => {
                let (name, hash) = match flags {
                    flags if flags & SHA_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & SHA_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(hash, &random, data, &mut bytes).ok()?;
                put(&mut signature, name.as_bytes());
                put(&mut signature, &bytes);
            }
            Secret::Ecdsa(curve, pair) => {
                let signed = pair.sign(&random, data).ok()?;
                let (r, s) = signed.as_ref().split_at_checked(curve.length)?;
                let mut numbers = Vec::new();
                put_number(&mut numbers, r);
                put_number(&mut numbers, s);
                put(&mut signature, format!("ecdsa-sha2-{}", curve.name).as_bytes());
                put(&mut signature, &numbers);
            }
        }
        Some(signature)
    }
}

/// What ssh writes: numbers of four bytes, and texts behind their lengths (RFC 4251, 5).
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl<'a> Wire<'a> {
    pub(super) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    /// A number of any length, without the zeros before it.
    fn long(&mut self) -> Option<&'a [u8]> {
        self.text().map(bare)
    }
}

/// Writes a text as ssh does.
pub(super) fn put(into: &mut Vec<u8>, text: &[u8]) {
    // Nothing here is as long as four gigabytes.
    into.extend((text.len() as u32).to_be_bytes());
    into.extend(text);
}

/// Writes a number as ssh does: not negative, so with a zero before a high bit.
fn put_number(into: &mut Vec<u8>, number: &[u8]) {
    let number = bare(number);
    let sign = number.first().is_some_and(|first| first & 0x80 != 0);
    put(into, &[&[0][..usize::from(sign)], number].concat());
}

/// A number without the zeros before it.
fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Reads the first key of a text.
fn parse(text: &str) -> Result<Key, KeyError> {
    let begin = text.find("-----BEGIN ").ok_or(KeyError::None)?;
    let rest = &text[begin + "-----BEGIN ".len()..];
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::None)?;
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::None)?;
    // Headers end at an empty line (RFC 1421): of them only that says something which it is encrypted by.
    if body.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED")) {
        return Err(KeyError::Encrypted);
    }
    let letters: String = body.split_whitespace().collect();
    let bytes = base64(&letters).ok_or(KeyError::None)?;
    match label {
        "OPENSSH PRIVATE KEY" => of_openssh(&bytes),
        "RSA PRIVATE KEY" => of_rsa(RsaKeyPair::from_der(&bytes).map_err(|_| KeyError::Damaged)?),
        "EC PRIVATE KEY" => of_sec1(&bytes).ok_or(KeyError::Damaged)?,
        "PRIVATE KEY" => of_pkcs8(&bytes),
        other => Err(KeyError::Label(other.to_owned())),
    }
}

fn of_openssh(bytes: &[u8]) -> Result<Key, KeyError> {
    let mut wire = Wire(bytes.strip_prefix(MAGIC).ok_or(KeyError::Damaged)?);
    let mut part = || wire.text().ok_or(KeyError::Damaged);
    if part()? != b"none" {
        return Err(KeyError::Encrypted);
    }
    let _how_keys_are_made_of_passwords = (part()?, part()?);
    if wire.number() != Some(1) {
        return Err(KeyError::Damaged);
    }
    let _public = wire.text();
    let mut wire = Wire(wire.text().ok_or(KeyError::Damaged)?);
    if wire.number() != wire.number() {
        return Err(KeyError::Damaged);
    }
    let kind = wire.text().ok_or(KeyError::Damaged)?;
    match kind {
        b"ssh-ed25519" => ed25519(&mut wire).ok_or(KeyError::Damaged),
        b"ssh-rsa" => of_rsa(rsa(&mut wire).ok_or(KeyError::Damaged)?),
        kind => {
            let curve = CURVES.iter().find(|curve| kind == format!("ecdsa-sha2-{}", curve.name).as_bytes());
            let curve = curve.ok_or_else(|| KeyError::Type(String::from_utf8_lossy(kind).into_owned()))?;
            let point = wire.text().and_then(|_| wire.text());
            point.zip(wire.long()).and_then(|(point, number)| ecdsa(curve, number, point)).ok_or(KeyError::Damaged)
        }
    }
}

fn of_ed25519(pair: Ed25519KeyPair) -> Key {
    let mut public = Vec::new();
    put(&mut public, b"ssh-ed25519");
    put(&mut public, pair.public_key().as_ref());
    Key { public, secret: Secret::Ed25519(pair) }
}

fn ed25519(wire: &mut Wire<'_>) -> Option<Key> {
    let public = wire.text()?;
    let (seed, _) = wire.text()?.split_at_checked(32)?;
    Some(of_ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?))
}

fn rsa(wire: &mut Wire<'_>) -> Option<RsaKeyPair> {
    let (n, e, d) = (wire.long()?, wire.long()?, wire.long()?);
    let (inverse, p, q) = (wire.long()?, wire.long()?, wire.long()?);
    let (for_p, for_q) = (below(d, p), below(d, q));
    let components = ring::rsa::KeyPairComponents {
        public_key: ring::rsa::PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: bare(&for_p),
        dQ: bare(&for_q),
        qInv: inverse,
    };
    RsaKeyPair::from_components(&components).ok()
}

fn of_rsa(pair: RsaKeyPair) -> Result<Key, KeyError> {
    let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let mut public = Vec::new();
    put(&mut public, b"ssh-rsa");
    put_number(&mut public, &parts.e);
    put_number(&mut public, &parts.n);
    Ok(Key { public, secret: Secret::Rsa(Box::new(pair)) })
}

/// What is left of a number by an odd prime less one: OpenSSH's format has not what signing needs of that.
fn below(number: &[u8], prime: &[u8]) -> Vec<u8> {
    let mut modulus = [&[0], prime].concat();
    if let Some(last) = modulus.last_mut() {
        *last &= !1;
    }
    let mut rest = vec![0_u8; modulus.len()];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let mut carry = bit;
        for digit in rest.iter_mut().rev() {
            let high = *digit >> 7;
            *digit = *digit << 1 | carry;
            carry = high;
        }
        if rest >= modulus {
            let mut borrow = false;
            for (digit, taken) in rest.iter_mut().zip(&modulus).rev() {
                let (less, first) = digit.overflowing_sub(*taken);
                let (less, second) = less.overflowing_sub(u8::from(borrow));
                (*digit, borrow) = (less, first || second);
            }
        }
    }
    rest
}

fn ecdsa(curve: &'static Curve, number: &[u8], point: &[u8]) -> Option<Key> {
    let zeros = curve.length.checked_sub(number.len())?;
    let number = [&vec![0; zeros], number].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &number, point, &SystemRandom::new());
    Some(of_ecdsa(curve, pair.ok()?))
}

fn of_ecdsa(curve: &'static Curve, pair: EcdsaKeyPair) -> Key {
    let mut public = Vec::new();
    put(&mut public, format!("ecdsa-sha2-{}", curve.name).as_bytes());
    put(&mut public, curve.name.as_bytes());
    put(&mut public, pair.public_key().as_ref());
    Key { public, secret: Secret::Ecdsa(curve, pair) }
}

/// An element of DER (X.690, 8.1): its tag, what is in it, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = match first {
        length @ ..=0x7f => (usize::from(*length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (inside, behind) = rest.split_at_checked(length)?;
    Some((*tag, inside, behind))
}

/// A key of a curve (RFC 5915); `None` for what is none.
fn of_sec1(bytes: &[u8]) -> Option<Result<Key, KeyError>> {
    let (0x30, inside, _) = element(bytes)? else { return None };
    let (2, _, rest) = element(inside)? else { return None };
    let (4, number, rest) = element(rest)? else { return None };
    let (0xa0, parameters, rest) = element(rest)? else { return None };
    let (0xa1, point, _) = element(rest)? else { return None };
    let (6, oid, _) = element(parameters)? else { return None };
    // A string of bits begins with how many of the last byte do not count.
    let (3, [0, point @ ..], _) = element(point)? else { return None };
    let Some(curve) = CURVES.iter().find(|curve| curve.oid == oid) else {
        return Some(Err(KeyError::Type("EC of another curve than nistp256 and nistp384".to_owned())));
    };
    Some(ecdsa(curve, bare(number), point).ok_or(KeyError::Damaged))
}

fn of_pkcs8(bytes: &[u8]) -> Result<Key, KeyError> {
    if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes) {
        return of_rsa(pair);
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(of_ed25519(pair));
    }
    let random = SystemRandom::new();
    let of = |curve: &'static Curve| {
        let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes, &random).ok()?;
        Some(of_ecdsa(curve, pair))
    };
    CURVES.iter().find_map(of).ok_or(KeyError::Damaged)
}
