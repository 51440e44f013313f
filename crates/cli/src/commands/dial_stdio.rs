//! `system dial-stdio`: our standard streams are a connection to the daemon. What `ssh://` hosts run at the other end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Context;
use crate::report::Exit;

/// Bytes read at once.
const PIECE_BYTES: usize = 32 << 10;

/// `system dial-stdio`
pub async fn run(context: &Context) -> Result<(), Exit> {
    let opened = context.client.dial().await;
    let stream = opened.map_err(|err| {
        let exit = Exit::from(err);
        Exit::new(1, format!("failed to open the raw stream connection: {}", exit.message.unwrap_or_default()))
    })?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let input = async {
        let mut stdin = tokio::io::stdin();
        tokio::io::copy(&mut stdin, &mut writer).await?;
        writer.shutdown().await
    };
    let output = async {
        let mut stdout = tokio::io::stdout();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return Ok(()),
                length => stdout.write_all(&buffer[..length]).await?,
            }
            // Somebody waits for it at the other end of the line.
            stdout.flush().await?;
        }
    };
    tokio::pin!(input, output);
    // The end of the daemon's side is the end; that of the client's is not.
    let ended: std::io::Result<()> = tokio::select! {
        ended = &mut output => ended,
        ended = &mut input => match ended {
            Ok(()) => output.await,
            Err(err) => Err(err),
        },
    };
    ended.map_err(|err| Exit::error(&err))
}
