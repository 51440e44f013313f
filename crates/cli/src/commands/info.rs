//! `info`.

use std::fmt::Display;

use client::system;
use serde_json::{Value, json};

use super::Context;
use crate::args::Parsed;
use crate::format::template::Format;
use crate::format::units;
use crate::report::Exit;
use crate::{say_line, warn_line};

/// `info`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = match parsed.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let format = format.map(Format::parse).transpose();
    let format = format.map_err(|err| Exit::new(64, format!("template parsing error: {err}")))?;
    let info = system::info(&context.client).await?;
    let mut value = serde_json::to_value(&info).unwrap_or_default();
    match format {
        Some(format) => {
            value["ClientInfo"] =
                json!({"Version": env!("CARGO_PKG_VERSION"), "Context": context.name(), "Debug": false, "Plugins": []});
            let text = format.apply("system.dockerInfo", &value);
            // Docker ends the line that it could not fill.
            say_line!("{}", text.as_deref().unwrap_or_default());
            text.map_err(|err| Exit::error(&err))?;
        }
        None => {
            say_line!(
                "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n",
                env!("CARGO_PKG_VERSION"),
                context.name()
            );
            say_line!("Server:\n{}", pretty(&value));
            texts(&value["Warnings"]).iter().for_each(|warning| warn_line!("{warning}"));
        }
    }
    Ok(())
}

/// The text that is built line by line.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, value: impl Display) {
        self.text.push_str(&format!(" {name}: {value}\n"));
    }

    /// Nothing, if there is nothing to say.
    fn known(&mut self, name: &str, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.line(name, text);
        }
    }

    /// A title and its lines, if there are any.
    fn list(&mut self, name: &str, lines: &[String]) {
        if !lines.is_empty() {
            self.text.push_str(&format!(" {name}:\n"));
            lines.iter().for_each(|line| self.text.push_str(&format!("  {line}\n")));
        }
    }
}

fn pretty(info: &Value) -> String {
    let mut page = Page::default();
    engine(&mut page, info);
    runtimes(&mut page, info);
    host(&mut page, info);
    page.text
}

fn engine(page: &mut Page, info: &Value) {
    page.line("Containers", &info["Containers"]);
    page.line(" Running", &info["ContainersRunning"]);
    page.line(" Paused", &info["ContainersPaused"]);
    page.line(" Stopped", &info["ContainersStopped"]);
    page.line("Images", &info["Images"]);
    page.known("Server Version", &info["ServerVersion"]);
    page.known("Storage Driver", &info["Driver"]);
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        page.line(&format!(" {}", pair[0].as_str().unwrap_or("")), pair[1].as_str().unwrap_or(""));
    }
    page.known("Logging Driver", &info["LoggingDriver"]);
    page.known("Cgroup Driver", &info["CgroupDriver"]);
    page.known("Cgroup Version", &info["CgroupVersion"]);
    let plugins = &info["Plugins"];
    let families = ["Volume", "Network", "Authorization", "Log"];
    let named = families.iter().filter(|family| **family != "Authorization" || !texts(&plugins[**family]).is_empty());
    page.list("Plugins", &named.map(|family| joined(family, &plugins[*family])).collect::<Vec<_>>());
    page.list("CDI spec directories", &texts(&info["CDISpecDirs"]));
    let devices = info["DiscoveredDevices"].as_array().into_iter().flatten();
    let named = |device: &Value| Some(format!("{}: {}", device["Source"].as_str()?, device["ID"].as_str()?));
    page.list("Discovered Devices", &devices.filter_map(named).collect::<Vec<String>>());
    page.line("Swarm", info["Swarm"]["LocalNodeState"].as_str().unwrap_or(""));
}

fn joined(family: &str, names: &Value) -> String {
    format!("{family}: {}", texts(names).join(" "))
}

fn runtimes(page: &mut Page, info: &Value) {
    if let Some(runtimes) = info["Runtimes"].as_object().filter(|runtimes| !runtimes.is_empty()) {
        page.line("Runtimes", runtimes.keys().cloned().collect::<Vec<_>>().join(" "));
        page.line("Default Runtime", info["DefaultRuntime"].as_str().unwrap_or(""));
    }
    page.line("Init Binary", info["InitBinary"].as_str().unwrap_or(""));
    for (name, field) in [("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")] {
        page.line(&format!("{name} version"), info[field]["ID"].as_str().unwrap_or(""));
    }
    let mut lines = Vec::new();
    for option in texts(&info["SecurityOptions"]) {
        for (name, value) in option.split(',').filter_map(|pair| pair.split_once('=')) {
            match name {
                "name" => lines.push(value.to_owned()),
                "profile" => lines.push(format!(" Profile: {value}")),
                _ => {}
            }
        }
    }
    page.list("Security Options", &lines);
}

fn host(page: &mut Page, info: &Value) {
    page.known("Kernel Version", &info["KernelVersion"]);
    page.known("Operating System", &info["OperatingSystem"]);
    page.known("OSType", &info["OSType"]);
    page.known("Architecture", &info["Architecture"]);
    page.line("CPUs", &info["NCPU"]);
    page.line("Total Memory", units::bytes_size(info["MemTotal"].as_f64().unwrap_or(0.0)));
    page.known("Name", &info["Name"]);
    page.known("ID", &info["ID"]);
    page.line("Docker Root Dir", info["DockerRootDir"].as_str().unwrap_or(""));
    page.line("Debug Mode", &info["Debug"]);
    page.known("HTTP Proxy", &info["HttpProxy"]);
    page.known("HTTPS Proxy", &info["HttpsProxy"]);
    page.known("No Proxy", &info["NoProxy"]);
    page.list("Labels", &texts(&info["Labels"]));
    page.line("Experimental", &info["ExperimentalBuild"]);
    let registries = &info["RegistryConfig"];
    let indexes = registries["IndexConfigs"].as_object().into_iter().flatten();
    let mut insecure: Vec<String> =
        indexes.filter(|(_, index)| index["Secure"] == false).map(|(name, _)| name.clone()).collect();
    insecure.extend(texts(&registries["InsecureRegistryCIDRs"]));
    page.list("Insecure Registries", &insecure);
    page.list("Registry Mirrors", &texts(&registries["Mirrors"]));
    page.line("Live Restore Enabled", &info["LiveRestoreEnabled"]);
    let backend = &info["FirewallBackend"];
    let pairs = backend["Info"].as_array().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.filter_map(|pair| Some(format!("  {}: {}\n", pair[0].as_str()?, pair[1].as_str()?))).collect();
    // As Docker's later clients print it; without anything to say about it there is no line, as with earlier ones.
    if let Some(driver) = backend["Driver"].as_str().filter(|driver| *driver != "nftables" || !pairs.is_empty()) {
        page.line("Firewall Backend", driver);
        page.text.extend(pairs);
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
