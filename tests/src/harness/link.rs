//! A way from one process to the backend that can be cut: nothing arrives then, in either direction, and nobody is told. When it
//! is mended, what was under way arrives late, as TCP has it.

#![expect(clippy::disallowed_types, reason = "a link owns the tasks of its connections")]

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One that is open until it is cut. Dropping it closes it for good.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    _served: JoinSet<()>,
}

impl Link {
    /// Leads to this address (`host:port`), from a port of its own on the loopback.
    ///
    /// # Errors
    /// No port can be had.
    pub fn to(backend: &str) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no port for a link")?;
        listener.set_nonblocking(true)?;
        let (address, listener) = (listener.local_addr()?, TcpListener::from_std(listener)?);
        let (cut, is_cut) = watch::channel(false);
        let mut served = JoinSet::new();
        served.spawn(serve(listener, backend.to_owned(), is_cut));
        Ok(Self { address, cut, _served: served })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn serve(listener: TcpListener, backend: String, is_cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((here, _)) = listener.accept().await {
        connections.spawn(connect(here, backend.clone(), is_cut.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Errors end the connection, as those of a network do.
async fn connect(here: TcpStream, backend: String, is_cut: watch::Receiver<bool>) -> std::io::Result<()> {
    let there = TcpStream::connect(backend).await?;
    there.set_nodelay(true)?;
    here.set_nodelay(true)?;
    let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
    tokio::try_join!(carry(from_here, to_there, is_cut.clone()), carry(from_there, to_here, is_cut))?;
    Ok(())
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut is_cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if is_cut.wait_for(|cut| !cut).await.is_err() {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_sent_while_it_is_cut_arrives_when_it_is_mended() -> anyhow::Result<()> {
        let backend = TcpListener::bind("127.0.0.1:0").await?;
        let link = Link::to(&backend.local_addr()?.to_string())?;
        let mut here = TcpStream::connect(link.address()).await?;
        let (mut there, _) = backend.accept().await?;
        let mut got = [0; 3];
        here.write_all(b"one").await?;
        there.read_exact(&mut got).await?;
        link.cut(true);
        here.write_all(b"two").await?;
        let early = tokio::time::timeout(Duration::from_millis(50), there.read_exact(&mut got)).await;
        assert!(early.is_err(), "{got:?} came through");
        link.cut(false);
        there.read_exact(&mut got).await?;
        assert_eq!(&got, b"two");
        drop(link);
        assert_eq!(here.read(&mut got).await.unwrap_or(0), 0, "closed for good");
        Ok(())
    }
}
