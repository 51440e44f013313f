//! The user's terminal: its size, and raw mode with a way back on every exit.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use engine_api::progress::UNKNOWN_WIDTH;
use rustix::fd::AsFd;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// What the terminal was before; the panic hook needs it, because a panic aborts without running destructors.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode, as long as this lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Switches standard input to raw mode, if it is a terminal.
    pub fn enter() -> io::Result<Option<RawMode>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let original = tcgetattr(io::stdin())?;
        let mut raw = original.clone();
        raw.make_raw();
        restore_on_panic();
        *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(original);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(RawMode(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(original) = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The terminal may be gone by now; then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &original);
    }
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
    });
}

/// Asks for a line, which is typed in sight.
pub async fn ask(question: String) -> io::Result<String> {
    typed(move || {
        crate::say!("{question}");
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    })
    .await
}

/// Everything that standard input has.
pub async fn read_all() -> io::Result<String> {
    typed(|| io::read_to_string(io::stdin())).await
}

/// Reads on a thread of its own: signals must find us meanwhile. Not one of the runtime's, which would wait for it at the end.
async fn typed(read: impl FnOnce() -> io::Result<String> + Send + 'static) -> io::Result<String> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(read()));
    answer.await.unwrap_or_else(|_| Ok(String::new()))
}

/// Asks for a line that nobody may see; `None` if the user has enough of it and presses Ctrl-C.
pub async fn ask_secret(question: &str) -> io::Result<Option<String>> {
    let shown = tcgetattr(io::stdin())?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    restore_on_panic();
    *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    let restored = RawMode(());
    tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
    let (mut hangup, mut terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let typed = tokio::select! {
        line = ask(question.to_owned()) => line.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
        // A terminal that goes, and who ends us, must not find it without its echo either.
        _ = hangup.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
    };
    drop(restored);
    crate::say_line!("");
    typed
}

/// Height and width of the terminal behind standard output; `None` if there is none.
pub fn size() -> Option<(u16, u16)> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 || size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Width of a terminal, as progress is shown on it.
pub fn columns(terminal: impl AsFd) -> u16 {
    tcgetwinsize(terminal).map_or(UNKNOWN_WIDTH, |size| size.ws_col)
}

/// Refuses a terminal for the container where standard input is none.
pub fn check_tty(stdin: bool, tty: bool) -> Result<(), crate::report::Exit> {
    if stdin && tty && !io::stdin().is_terminal() {
        return Err(crate::report::Exit::new(1, "the input device is not a TTY"));
    }
    Ok(())
}
