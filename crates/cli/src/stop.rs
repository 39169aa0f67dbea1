//! SIGTERM, SIGINT or a closed standard input -> a token that asks to finish.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first SIGTERM or SIGINT; with `stdin`, also when standard input closes, so that a child
/// ends with the process that started it, however that one ended.
#[expect(clippy::disallowed_methods, reason = "it lives as long as the process")]
pub(crate) fn on_signal(stdin: bool) -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! { biased;
            _ = terminate.recv() => tracing::info!("SIGTERM: finishing"),
            _ = interrupt.recv() => tracing::info!("SIGINT: finishing"),
            () = stdin_closed(), if stdin => tracing::info!("standard input closed: finishing"),
        }
        token.cancel();
    });
    Ok(stop)
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0u8; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
}
