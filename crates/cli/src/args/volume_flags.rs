//! Flags of `volume create`.

use super::later::Wait;
use super::{Flag, Kind};

/// Of volumes that a cluster's plugins make.
pub const CLUSTER: &[Flag] = &[
    Flag::value("availability", Kind::Text, "string", "active, pause or drain").default("active").later(Wait::Clusters),
    Flag::value("group", Kind::Text, "string", "Group of volumes that it is one of").later(Wait::Clusters),
    Flag::value("limit-bytes", Kind::Bytes, "bytes", "Size it may have").default("0").later(Wait::Clusters),
    Flag::value("required-bytes", Kind::Bytes, "bytes", "Size it must have").default("0").later(Wait::Clusters),
    Flag::value("scope", Kind::Text, "string", "single or multi").default("single").later(Wait::Clusters),
    Flag::value("secret", Kind::Map, "map", "Secret of its plugin").default("map[]").later(Wait::Clusters),
    Flag::value("sharing", Kind::Text, "string", "none, readonly, onewriter or all")
        .default("none")
        .later(Wait::Clusters),
    Flag::value("topology-preferred", Kind::List, "list", "Where it should be").later(Wait::Clusters),
    Flag::value("topology-required", Kind::List, "list", "Where it must be").later(Wait::Clusters),
    Flag::value("type", Kind::Text, "string", "block or mount").default("block").later(Wait::Clusters),
];

/// Of others.
pub const CREATE: &[Flag] = &[
    Flag::value("driver", Kind::Text, "string", "Driver that makes it").short('d').default("local"),
    Flag::value("label", Kind::Label, "list", "Attach metadata"),
    Flag::value("name", Kind::Text, "string", "Name it").hidden(),
    Flag::value("opt", Kind::Map, "map", "Option of the driver").short('o').default("map[]"),
];
