//! From a command line to what the API wants: pure functions of the command line and its [`Surroundings`].

pub mod beside;
pub mod bootstrap;
pub mod build;
pub mod buildx;
pub mod caches;
pub mod capabilities;
pub mod copy;
pub mod create;
pub mod devices;
pub mod environment;
pub mod filters;
pub mod health;
pub mod ipam;
pub mod mount;
pub mod network;
pub mod outputs;
pub mod ports;
pub mod proxies;
pub mod security;
pub mod times;
pub mod values;
pub mod volume;

use std::io;

/// What a plan may look at beside the command line; tests bring their own.
pub struct Surroundings<'a> {
    /// Reads a file.
    pub read: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The working directory.
    pub directory: &'a str,
}

impl Surroundings<'_> {
    /// A path as the daemon must get it: relative ones that begin with a dot are the user's.
    pub fn absolute(&self, path: &str) -> String {
        if !path.starts_with('.') {
            return path.to_owned();
        }
        let mut parts: Vec<&str> = self.directory.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        format!("/{}", parts.join("/"))
    }
}
