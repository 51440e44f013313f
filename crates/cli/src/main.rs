//! `longshore`, and `docker` where it is called so.

fn main() {
    let arguments = std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    std::process::exit(i32::from(cli::run(arguments)));
}
