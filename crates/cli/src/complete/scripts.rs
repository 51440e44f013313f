//! The scripts by which shells ask.

/// Shells that `completion` knows; the first three ask at each press, the others know what the tables have.
pub const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "powershell", "elvish"];

/// The script of a shell that asks.
pub fn of(shell: &str, program: &str) -> Option<String> {
    let script = match shell {
        "bash" => include_str!("longshore.bash"),
        "zsh" => include_str!("longshore.zsh"),
        "fish" => include_str!("longshore.fish"),
        _ => return None,
    };
    Some(script.replace("@PROGRAM@", program))
}
