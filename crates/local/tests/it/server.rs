//! The server as a whole: ports, errors that help, stopping.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use sluicegate_local::{LocalConfig, LocalError, LocalServer};

use crate::support::{Backend, STREAM, kinesis_client};

#[tokio::test]
async fn both_services_listen_on_loopback() {
    let backend = Backend::start().await;
    for endpoint in [&backend.server.endpoints().kinesis, &backend.server.endpoints().dynamodb] {
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
    }
    assert_ne!(backend.server.endpoints().kinesis, backend.server.endpoints().dynamodb);
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = LocalConfig { dynamodb_port: port, ..LocalConfig::default() };
    let error = LocalServer::start(config).await.unwrap_err();
    assert!(matches!(error, LocalError::PortInUse { port: told, .. } if told == port));
    assert_eq!(
        error.to_string(),
        format!(
            "port {port} for the local dynamodb is in use: stop what listens there, choose another dynamodb_port, or use \
             0 for any free port"
        )
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir: PathBuf = file.path().join("data");
    let config = LocalConfig { dir: Some(dir), ..LocalConfig::default() };
    let error = LocalServer::start(config).await.unwrap_err();
    assert!(matches!(error, LocalError::FolderNotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains("make it writable, or give another folder"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dynamodb.sqlite"), "this is not a database file, whatever its name")
        .unwrap();
    let config = LocalConfig { dir: Some(dir.path().to_path_buf()), ..LocalConfig::default() };
    let error = LocalServer::start(config).await.unwrap_err();
    assert!(matches!(error, LocalError::Database { .. }), "{error:?}");
}

#[tokio::test]
async fn stopping_frees_the_ports_while_clients_stay_connected() {
    let backend = Backend::with_stream(1).await;
    backend.put("x").await; // leaves a connection open
    let endpoint = backend.server.endpoints().kinesis.clone();
    tokio::time::timeout(Duration::from_secs(10), backend.server.stop()).await.unwrap();
    let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    let again =
        LocalServer::start(LocalConfig { kinesis_port: port, ..LocalConfig::default() }).await.unwrap();
    assert_eq!(again.endpoints().kinesis, endpoint);
    let streams = kinesis_client(&endpoint).list_streams().send().await.unwrap();
    assert!(!streams.stream_names().contains(&STREAM.to_owned()));
}
