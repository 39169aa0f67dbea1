//! A server in a process of its own is killed under load; what it acknowledged is there afterwards.
#![expect(clippy::disallowed_types, reason = "several writers must be in flight when the server dies")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aws_sdk_dynamodb::Client;
use sluicegate_local::{LocalConfig, LocalServer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::dynamodb::{TABLE, client_of, create_table, s};

const SERVER: &str = "durability::a_server_to_be_killed";
/// Marks a folder as one that the server may serve from: it takes its working folder, so that it needs no arguments.
const MARK: &str = "serve-from-here";
const LISTENING: &str = "dynamodb listens at ";

#[tokio::test]
#[ignore = "the other process of the test below; does nothing by itself"]
async fn a_server_to_be_killed() {
    if Path::new(MARK).exists() {
        let config = LocalConfig { dir: Some("data".into()), ..LocalConfig::default() };
        let server = LocalServer::start(config).await.unwrap();
        println!("\n{LISTENING}{}", server.endpoints().dynamodb);
        std::future::pending::<()>().await;
    }
}

/// Dies with its owner.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

fn start_process(dir: &Path) -> (ServerProcess, String) {
    std::fs::write(dir.join(MARK), "").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", SERVER]).current_dir(dir).stdout(Stdio::piped());
    let mut process = ServerProcess(command.spawn().unwrap());
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let endpoint = lines.find_map(|line| line.unwrap().strip_prefix(LISTENING).map(str::to_owned));
    (process, endpoint.unwrap())
}

/// Writes until the server is gone, telling each key once it is acknowledged.
async fn write(client: Client, writer: usize, acknowledged: mpsc::Sender<String>) {
    for number in 0.. {
        let key = format!("{writer}-{number}");
        let put = client.put_item().table_name(TABLE).item("pk", s("a")).item("sk", s(&key));
        if put.send().await.is_err() || acknowledged.send(key).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (process, endpoint) = start_process(dir.path());
    let client = client_of(&endpoint);
    create_table(&client).await;
    let (sender, mut receiver) = mpsc::channel(16);
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write(client.clone(), writer, sender.clone()));
    }
    drop(sender);
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 200 {
        acknowledged.push(receiver.recv().await.unwrap());
    }
    drop(process);
    while let Some(key) = receiver.recv().await {
        acknowledged.push(key);
    }

    let config = LocalConfig { dir: Some(dir.path().join("data")), ..LocalConfig::default() };
    let server = LocalServer::start(config).await.unwrap();
    let client = client_of(&server.endpoints().dynamodb);
    for key in acknowledged {
        let get =
            client.get_item().table_name(TABLE).key("pk", s("a")).key("sk", s(&key)).consistent_read(true);
        assert!(get.send().await.unwrap().item().is_some(), "{key} was acknowledged and is lost");
    }
}
