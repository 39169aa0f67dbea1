//! The embedded backend on sockets of its own, with clients for it.

use std::io::Cursor;
use std::num::NonZeroU32;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, bail};
use aws_sdk_dynamodb as dynamodb;
use aws_sdk_kinesis as kinesis;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::KeyTemplate;
use sluicegate_lease::dynamodb::{DynamoLeaseStore, DynamoRegistry, worker_table_name};
use sluicegate_lease::store::ReadError;
use sluicegate_lease::{Lease, LeaseStore, WorkerRegistry, WorkerRow};
use sluicegate_local::{Endpoints, LocalConfig, LocalServer};
use sluicegate_producer::{Keying, Progress, PublishOptions, StreamName, Summary, publish};
use sluicegate_worker::kinesis::KinesisStream;
use sluicegate_worker::{ReadFrom, StreamReader};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::command::bare;
use super::events::Multiset;
use super::table::Table;
use super::wait::LONG;

/// The stream that tests publish to.
pub const STREAM: &str = "flights";
/// The partition key that [`Backend::publish`] gives events.
pub const KEY: &str = "{/customer}";

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    /// Ends it when dropped.
    _server: Server,
    endpoints: Endpoints,
    kinesis: kinesis::Client,
    dynamodb: dynamodb::Client,
}

/// Where it runs.
#[derive(Debug)]
enum Server {
    Here {
        _server: LocalServer,
    },
    /// Killed when dropped; its input is open as long as this process lives.
    Process {
        _child: Child,
    },
}

impl Backend {
    /// Starts `sluicegate local` in a process of its own, on free ports.
    ///
    /// # Errors
    /// It cannot be started, or names no endpoints.
    pub async fn process() -> anyhow::Result<Self> {
        Self::process_with(&[]).await
    }

    /// Starts `sluicegate local` in a process of its own, on free ports, with more arguments: its limits and faults.
    ///
    /// # Errors
    /// It cannot be started, or names no endpoints.
    pub async fn process_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let mut command = bare(home.path())?;
        command.args([
            "local",
            "--kinesis-port",
            "0",
            "--dynamodb-port",
            "0",
            "--json",
            "--until-stdin-closes",
        ]);
        command.args(arguments);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no output")?;
        tokio::time::timeout(LONG, BufReader::new(stdout).read_line(&mut line)).await??;
        let told: serde_json::Value = serde_json::from_str(&line)?;
        let text = |name: &str| told[name].as_str().map(str::to_owned).context("no endpoint");
        let endpoints = Endpoints { kinesis: text("kinesis")?, dynamodb: text("dynamodb")? };
        Ok(Self::at(Server::Process { _child: child }, endpoints))
    }

    fn at(server: Server, endpoints: Endpoints) -> Self {
        let (kinesis, dynamodb) = (kinesis_at(&endpoints.kinesis), dynamodb_at(&endpoints.dynamodb));
        Self { _server: server, endpoints, kinesis, dynamodb }
    }

    /// Starts it in this process, on free ports.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(LocalConfig::default()).await
    }

    /// Starts it in this process with other settings.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start_with(config: LocalConfig) -> anyhow::Result<Self> {
        let server = LocalServer::start(config).await?;
        let endpoints = server.endpoints().clone();
        Ok(Self::at(Server::Here { _server: server }, endpoints))
    }

    /// Starts it with [`STREAM`] in it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn with_stream(shards: i32) -> anyhow::Result<Self> {
        let backend = Self::start().await?;
        backend.kinesis.create_stream().stream_name(STREAM).shard_count(shards).send().await?;
        Ok(backend)
    }

    /// Makes [`STREAM`].
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_stream(&self, shards: usize) -> anyhow::Result<()> {
        let count = i32::try_from(shards)?;
        self.kinesis.create_stream().stream_name(STREAM).shard_count(count).send().await?;
        Ok(())
    }

    /// Where it answers.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// A Kinesis client.
    pub fn kinesis(&self) -> &kinesis::Client {
        &self.kinesis
    }

    /// A DynamoDB client.
    pub fn dynamodb(&self) -> &dynamodb::Client {
        &self.dynamodb
    }

    /// What a plain GET of a path of the embedded DynamoDB answers.
    ///
    /// # Errors
    /// It does not answer with JSON.
    pub async fn dynamodb_admin(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let answer = super::fleet::http(self.address(), "GET", path, "").await?;
        serde_json::from_str(&answer).with_context(|| format!("{path}: {answer}"))
    }

    /// What a plain GET of a path of the embedded Kinesis answers.
    ///
    /// # Errors
    /// It does not answer with JSON.
    pub async fn kinesis_admin(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let address = self.endpoints.kinesis.trim_start_matches("http://");
        let answer = super::fleet::http(address, "GET", path, "").await?;
        serde_json::from_str(&answer).with_context(|| format!("{path}: {answer}"))
    }

    /// Changes limits or faults of the embedded DynamoDB.
    ///
    /// # Errors
    /// The document is refused.
    pub async fn set(&self, path: &str, document: &str) -> anyhow::Result<()> {
        super::fleet::http(self.address(), "POST", path, document).await.map(drop)
    }

    /// Changes limits or faults of the embedded Kinesis.
    ///
    /// # Errors
    /// The document is refused.
    pub async fn set_kinesis(&self, path: &str, document: &str) -> anyhow::Result<()> {
        let address = self.endpoints.kinesis.trim_start_matches("http://");
        super::fleet::http(address, "POST", path, document).await.map(drop)
    }

    /// Where DynamoDB, and what is asked beside it, is: host and port.
    pub(super) fn address(&self) -> &str {
        self.endpoints.dynamodb.trim_start_matches("http://")
    }

    /// What tells a process where it is.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("AWS_ENDPOINT_URL_KINESIS".to_owned(), self.endpoints.kinesis.clone()),
            ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), self.endpoints.dynamodb.clone()),
        ]
    }

    /// Publishes lines under [`KEY`], at most so many a second.
    ///
    /// # Errors
    /// Not all were stored.
    pub async fn publish(&self, lines: &[String], rate: Option<u32>) -> anyhow::Result<Summary> {
        let stream = StreamName::new(STREAM);
        let writer = sluicegate_producer::kinesis::KinesisStream::new(self.kinesis.clone(), stream);
        let options = PublishOptions {
            keying: Keying::Template(KeyTemplate::parse(KEY)?),
            events_per_second: rate.and_then(NonZeroU32::new),
            ..PublishOptions::new(SmallRng::seed_from_u64(1))
        };
        let input = Cursor::new(lines.join("\n").into_bytes());
        let stop = CancellationToken::new();
        match publish(input, Arc::new(writer), options, Arc::new(Progress::default()), stop).await {
            Ok(summary) if summary.records == lines.len() as u64 => Ok(summary),
            Ok(summary) => bail!("of {} lines this was published: {summary:?}", lines.len()),
            Err(error) => Err(anyhow::Error::new(error.fault).context("the lines were not published")),
        }
    }

    /// Publishes as [`Backend::publish`] does, half a second's lines at a time, until `enough` is cancelled, and returns how
    /// many of the lines were published: for tests that need events to come as long as something else takes.
    ///
    /// # Errors
    /// Not all were stored, or there are no more lines.
    pub async fn publish_until(
        &self,
        lines: &[String],
        rate: u32,
        enough: &CancellationToken,
    ) -> anyhow::Result<usize> {
        let mut published = 0;
        for chunk in lines.chunks(usize::try_from(rate / 2)?) {
            self.publish(chunk, Some(rate)).await?;
            published += chunk.len();
            if enough.is_cancelled() {
                return Ok(published);
            }
        }
        bail!("all {published} lines were published before it was enough")
    }

    /// A reader of a stream, through the product's own adapter.
    pub fn stream(&self, name: &str) -> KinesisStream {
        KinesisStream::new(self.kinesis.clone(), name)
    }

    /// Everything that a stream holds.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn records(&self, stream: &str) -> anyhow::Result<Multiset> {
        let stream = self.stream(stream);
        let mut records = Multiset::default();
        for shard in stream.shards().await?.shards {
            let mut cursor = stream.open(&shard.id, ReadFrom::TrimHorizon);
            loop {
                let page = cursor.next_page(10_000).await?;
                page.records.iter().for_each(|record| records.add(record.data()));
                if page.behind_latest.is_zero() {
                    break;
                }
            }
        }
        Ok(records)
    }

    /// The lease table of an application.
    pub fn lease_store(&self, application: &str) -> Arc<dyn LeaseStore> {
        Arc::new(DynamoLeaseStore::new(self.dynamodb.clone(), application))
    }

    /// The worker table of an application.
    pub fn registry(&self, application: &str) -> Arc<dyn WorkerRegistry> {
        let table = worker_table_name(application);
        Arc::new(DynamoRegistry::new(self.dynamodb.clone(), table, application))
    }

    /// The lease rows of an application; none while there is no table.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn leases(&self, application: &str) -> anyhow::Result<Vec<Lease>> {
        rows(self.lease_store(application).leases().await)
    }

    /// The worker rows of an application; none while there is no table.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn workers(&self, application: &str) -> anyhow::Result<Vec<WorkerRow>> {
        rows(self.registry(application).workers().await)
    }

    /// The analytics table of an application.
    pub fn table(&self, application: &str) -> Table {
        Table::new(self.dynamodb.clone(), &format!("{application}-events"))
    }
}

fn rows<T>(read: Result<Vec<T>, ReadError>) -> anyhow::Result<Vec<T>> {
    match read {
        Ok(rows) => Ok(rows),
        Err(ReadError::Refused { what, .. }) if what.contains("does not exist") => Ok(Vec::new()),
        Err(error) => Err(error).context("rows cannot be read"),
    }
}

/// A Kinesis client for an endpoint, its own retries off.
pub fn kinesis_at(endpoint: &str) -> kinesis::Client {
    use kinesis::config::retry::RetryConfig;
    use kinesis::config::{BehaviorVersion, Config, Credentials, Region};
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint);
    kinesis::Client::from_conf(config.build())
}

/// A DynamoDB client for an endpoint, its own retries off.
pub fn dynamodb_at(endpoint: &str) -> dynamodb::Client {
    use dynamodb::config::retry::RetryConfig;
    use dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint);
    dynamodb::Client::from_conf(config.build())
}
