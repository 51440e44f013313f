//! Where buses are (D-Bus specification, "Server Addresses"). Pure.

use std::path::PathBuf;

/// Where the machine's bus is when nobody says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// The socket of the machine's bus, of these variables of the environment; whether it is there has not been looked at.
pub fn system_bus(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let said = variable("DBUS_SYSTEM_BUS_ADDRESS").as_deref().and_then(unix_path);
    said.unwrap_or_else(|| PathBuf::from(SYSTEM_BUS))
}

/// The path of the first address of a list that has one.
pub fn unix_path(addresses: &str) -> Option<PathBuf> {
    let options = addresses.split(';').find_map(|address| address.strip_prefix("unix:"))?;
    let path = options.split(',').find_map(|option| option.strip_prefix("path="))?;
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_first_that_has_a_path() {
        let path = |addresses: &str| unix_path(addresses).map(|path| path.display().to_string());
        assert_eq!(path("tcp:host=x;unix:guid=1,path=/a%20b").as_deref(), Some("/a b"));
        assert_eq!(path("unix:abstract=x"), None);
        assert_eq!(path("unix:path=/a%2"), None);
    }

    #[test]
    fn the_machines_bus_is_where_the_environment_says() {
        let bus = |said: Option<&str>| system_bus(|_| said.map(str::to_owned)).display().to_string();
        assert_eq!(bus(None), "/run/dbus/system_bus_socket");
        assert_eq!(bus(Some("unix:path=/x")), "/x");
        assert_eq!(bus(Some("tcp:host=x")), "/run/dbus/system_bus_socket");
    }
}
