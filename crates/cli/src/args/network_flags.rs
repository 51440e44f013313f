//! Flags of `network create` and `network connect`.

use super::{Flag, Kind};

/// Of `network create`.
pub const CREATE: &[Flag] = &[
    Flag::bool("attachable", "Containers may join by themselves"),
    Flag::value("aux-address", Kind::Map, "map", "Address that nobody gets").default("map[]"),
    Flag::value("config-from", Kind::Text, "string", "Network whose configuration it takes"),
    Flag::bool("config-only", "It is only a configuration"),
    Flag::value("driver", Kind::Text, "string", "Driver that makes it").short('d').default("bridge"),
    Flag::value(
        "egress",
        Kind::List,
        "list",
        "What its containers may connect to: deny, allow=NAME:PORT, allow=ADDRESS",
    ),
    Flag::value("gateway", Kind::Strings, "strings", "Address of its bridge"),
    Flag::bool("ingress", "It is a cluster's entrance"),
    Flag::bool("internal", "It leads nowhere"),
    Flag::value("ip-range", Kind::Strings, "strings", "Part of its subnet that containers get addresses from"),
    Flag::value("ipam-driver", Kind::Text, "string", "Driver that gives addresses").default("default"),
    Flag::value("ipam-opt", Kind::Map, "map", "Option of that driver").default("map[]"),
    Flag::bool("ipv4", "Whether it has IPv4 addresses").default("true"),
    Flag::bool("ipv6", "Whether it has IPv6 addresses"),
    Flag::value("label", Kind::Label, "list", "Attach metadata"),
    Flag::value("opt", Kind::Map, "map", "Option of the driver").short('o').default("map[]"),
    Flag::value("scope", Kind::Text, "string", "Where it is known"),
    Flag::value("subnet", Kind::Strings, "strings", "Its addresses, 10.1.0.0/16"),
];

/// Of `network connect`.
pub const CONNECT: &[Flag] = &[
    Flag::value("alias", Kind::Strings, "strings", "One more name there"),
    Flag::value("driver-opt", Kind::Strings, "strings", "Option of the network's driver"),
    Flag::value("gw-priority", Kind::Int, "int", "The highest of its networks has the gateway").default("0"),
    Flag::value("ip", Kind::Text, "string", "IPv4 address"),
    Flag::value("ip6", Kind::Text, "string", "IPv6 address"),
    Flag::value("link", Kind::Link, "list", "Link to another container there"),
    Flag::value("link-local-ip", Kind::Strings, "strings", "Link-local address"),
];
