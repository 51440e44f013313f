//! `port`.

mod exposure;

use client::container;

use super::Context;
use crate::args::Parsed;
use crate::report::Exit;
use crate::say_line;

/// `port CONTAINER [PORT[/PROTOCOL]]`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    if parsed.flag("exposure") {
        return exposure::run(context, parsed).await;
    }
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let ports = container::inspect(&context.client, name).await?.network_settings.ports;
    let address = |binding: &engine_api::host_config::PortBinding| match binding.host_ip.contains(':') {
        true => format!("[{}]:{}", binding.host_ip, binding.host_port),
        false => format!("{}:{}", binding.host_ip, binding.host_port),
    };
    let mut lines: Vec<String> = match parsed.positionals.get(1) {
        None => {
            let all = ports.iter().flat_map(|(port, bindings)| bindings.iter().flatten().map(move |one| (port, one)));
            all.map(|(port, binding)| format!("{port} -> {}", address(binding))).collect()
        }
        Some(wanted) => {
            let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, ""));
            if let Err(reason) = engine_api::ports::number(number) {
                return Err(Exit::new(1, format!("Error: invalid port ({number}): {reason}")));
            }
            let protocol = if protocol.is_empty() { "tcp" } else { protocol };
            let bindings = ports.get(&format!("{number}/{protocol}")).and_then(Option::as_ref);
            let Some(bindings) = bindings.filter(|bindings| !bindings.is_empty()) else {
                return Err(Exit::new(1, format!("Error: No public port '{wanted}' published for {name}")));
            };
            bindings.iter().map(address).collect()
        }
    };
    lines.sort_by_key(|line| natural(line));
    lines.iter().for_each(|line| say_line!("{line}"));
    Ok(())
}

/// Sorts numbers in a text by their value: `9/tcp` comes before `80/tcp`.
fn natural(text: &str) -> Vec<(u64, String)> {
    let mut parts: Vec<(u64, String)> = Vec::new();
    for letter in text.chars() {
        match (letter.to_digit(10), parts.last_mut()) {
            (Some(digit), Some((number, rest))) if rest.is_empty() => *number = *number * 10 + u64::from(digit),
            (Some(digit), _) => parts.push((digit.into(), String::new())),
            (None, Some((_, rest))) => rest.push(letter),
            (None, None) => parts.push((0, letter.to_string())),
        }
    }
    parts
}
