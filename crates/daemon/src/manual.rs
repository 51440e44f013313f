//! The manual page, from the same table as the flags.

use crate::flags;

/// `longshored(8)` in man's macros (groff_man(7)).
pub(crate) fn page() -> String {
    let mut page = format!(
        ".TH LONGSHORED 8 \"\" \"Longshore {}\" \"Longshore\"\n.SH NAME\nlongshored \\- the daemon of Longshore: Docker's \
         Engine API over containers, images and volumes\n.SH SYNOPSIS\n\\fBlongshored\\fR [OPTIONS]\n.br\n\
         \\fBlongshored install\\fR [DIRECTORY]\n.br\n\\fBlongshored man\\fR\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    page += "Serves Docker's API on a socket. Containers live on when it ends, and the next one takes them up again.\n.PP\n\
             \\fBinstall\\fR writes units for systemd, into DIRECTORY if one is named; \\fBman\\fR prints this page.\n\
             .SH OPTIONS\n";
    for option in flags::options() {
        let short = option.short.map_or(String::new(), |letter| format!("\\fB\\-{letter}\\fR, "));
        let value = if option.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", option.value) };
        let (flag, help) = (literal(option.flag), literal(&option.help));
        page += &format!(".TP\n{short}\\fB\\-\\-{flag}\\fR{value}\n{help}\n");
    }
    page += ".SH FILES\n.TP\n/etc/longshore/daemon.json\nSettings by their names in dockerd's file of that name; SIGHUP reads it \
             again.\n.SH SIGNALS\n.TP\nSIGTERM, SIGINT\nEnd the daemon; containers go on.\n.TP\nSIGHUP\nRead daemon.json \
             again.\n.SH SEE ALSO\n.BR longshore (1)\n";
    page
}

/// Text that man must not take for its own.
fn literal(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_every_flag_with_its_value() {
        let page = super::page();
        for text in [
            ".TP\n\\fB\\-\\-data\\-root\\fR \\fIstring\\fR\n",
            ".TP\n\\fB\\-D\\fR, \\fB\\-\\-debug\\fR\n",
            "(default /var/lib/longshore)",
        ] {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
    }
}
