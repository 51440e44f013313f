//! The pools of addresses that networks are cut from, checked as dockerd checks them: in its order, with its words.

use network::{AddressPool, Subnet};

use super::ConfigError;

/// Why pools were refused. The sentences are dockerd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("invalid field '{0}' must be a key=value pair")]
    Field(String),
    #[error("unexpected key '{key}' in '{field}'")]
    Key { key: String, field: String },
    #[error("invalid base prefix {0:?}: {why}", why = prefix_fault(.0))]
    Base(String),
    #[error("invalid size value: {text:?} (must be integer): strconv.Atoi: parsing {value:?}: invalid syntax")]
    Size { text: String, value: String },
    #[error(
        "Error initializing network controller: error obtaining controller instance: could not construct local address \
         space: network at index {index} (&{{{base} {size}}}) {fault}"
    )]
    Unusable { index: usize, base: String, size: i64, fault: String },
    #[error(
        "Error initializing network controller: error creating default \"bridge\" network: all predefined address pools \
         have been fully subnetted"
    )]
    Empty,
}

/// A pool as it was said: nothing about it has to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    base: Option<Subnet>,
    size: i64,
}

/// Pure: the pools of these texts, `base=172.30.0.0/16,size=24`.
pub(super) fn plan(texts: &[String]) -> Result<Vec<AddressPool>, ConfigError> {
    let mut said = texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    said.sort_by_key(|pool| pool.base.map(|base| (base.width(), base.address, base.prefix)));
    // Of two that overlap dockerd takes the larger one.
    said.dedup_by(|next, kept| next.base.zip(kept.base).is_some_and(|(next, kept)| kept.overlaps(next)));
    let checked = said.iter().enumerate().map(|(index, pool)| check(index, *pool));
    Ok(checked.collect::<Result<_, _>>()?)
}

fn parse(text: &str) -> Result<Said, PoolError> {
    let mut said = Said::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| PoolError::Field(field.to_owned()))?;
        match key.to_ascii_lowercase().as_str() {
            "base" => said.base = Some(value.parse().map_err(|_| PoolError::Base(value.to_owned()))?),
            "size" => {
                let refused = || PoolError::Size { text: text.to_owned(), value: value.to_owned() };
                said.size = value.parse().map_err(|_| refused())?;
            }
            _ => return Err(PoolError::Key { key: key.to_owned(), field: field.to_owned() }),
        }
    }
    Ok(said)
}

fn check(index: usize, pool: Said) -> Result<AddressPool, PoolError> {
    let unusable = |fault: String| PoolError::Unusable {
        index,
        base: pool.base.map_or_else(|| "invalid Prefix".to_owned(), |base| base.to_string()),
        size: pool.size,
        fault,
    };
    let canonical = pool.base.filter(|base| pool.size != 0 && base.network() == *base);
    let base = canonical.ok_or_else(|| unusable("is not in canonical form".to_owned()))?;
    if pool.size < base.prefix.into() {
        let (prefix, size) = (base.prefix, pool.size);
        return Err(unusable(format!("has a smaller prefix (/{prefix}) than the target size of that pool (/{size})")));
    }
    match u8::try_from(pool.size) {
        Ok(size) if size <= base.width() => Ok(AddressPool { base, size }),
        // Networks so small that there are none.
        _ => Err(PoolError::Empty),
    }
}

/// What Go's `netip.ParsePrefix` says of a text, without its details about addresses.
fn prefix_fault(text: &str) -> String {
    let fault = match text.rsplit_once('/') {
        None => "no '/'".to_owned(),
        Some((address, _)) if address.parse::<std::net::IpAddr>().is_err() => {
            format!("ParseAddr({address:?}): unable to parse IP")
        }
        Some((_, bits)) if bits.parse::<u32>().is_err() => format!("bad bits after slash: {bits:?}"),
        Some(_) => "prefix length out of range".to_owned(),
    };
    format!("netip.ParsePrefix({text:?}): {fault}")
}
