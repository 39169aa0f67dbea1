//! Runs both services behind loopback sockets, and stops them.
//!
//! Owns its tasks, one per listener; dropping a [`LocalServer`] ends them at once, [`LocalServer::stop`] lets answers under way
//! finish first.

#![expect(clippy::disallowed_types, reason = "this module owns the JoinSet of its two listeners")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Endpoints, LocalConfig, LocalError, Service};
use crate::connection::{Connection, Severable};
use crate::dynamodb::{DynamoDb, dynamodb_router};
use crate::faults::Faults;
use crate::journal::Journal;
use crate::kinesis::{Kinesis, kinesis_router};

/// How long [`LocalServer::stop`] waits for answers under way. Every answer here is computed in well under a second.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Both services, running.
#[derive(Debug)]
pub struct LocalServer {
    endpoints: Endpoints,
    kinesis: Kinesis,
    dynamodb: DynamoDb,
    faults: Faults,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl LocalServer {
    /// Opens both ports and starts to answer. When it returns, clients can connect.
    ///
    /// # Errors
    /// A port that cannot be had, or a data folder that cannot be used; nothing keeps running then.
    pub async fn start(config: LocalConfig) -> Result<Self, LocalError> {
        let journal = config.journal.as_deref().map(Journal::create).transpose()?;
        let faults = Faults::none(Arc::clone(&config.clock));
        let dynamodb = match &config.dir {
            Some(dir) => DynamoDb::in_folder(dir, Arc::clone(&config.clock))?,
            None => DynamoDb::in_memory(Arc::clone(&config.clock))?,
        };
        let dynamodb = dynamodb.with_faults(faults.clone()).with_journal(journal.clone());
        dynamodb.set_limits(config.dynamodb_limits);
        let kinesis =
            Kinesis::new(config.kinesis, config.clock).with_faults(faults.clone()).with_journal(journal);
        kinesis.set_limits(config.kinesis_limits);

        let (kinesis_listener, kinesis_url) = listen(Service::Kinesis, config.kinesis_port).await?;
        let (dynamodb_listener, dynamodb_url) = listen(Service::DynamoDb, config.dynamodb_port).await?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let kinesis_routes = kinesis_router(kinesis.clone());
        tasks.spawn(serve(Service::Kinesis, kinesis_listener, kinesis_routes, stop.clone()));
        let dynamodb_routes = dynamodb_router(dynamodb.clone());
        tasks.spawn(serve(Service::DynamoDb, dynamodb_listener, dynamodb_routes, stop.clone()));
        // Only now does the time of the script begin.
        faults.install(config.faults);

        let endpoints = Endpoints { kinesis: kinesis_url, dynamodb: dynamodb_url };
        info!(kinesis = endpoints.kinesis, dynamodb = endpoints.dynamodb, "local backend started");
        Ok(Self { endpoints, kinesis, dynamodb, faults, stop, tasks })
    }

    /// The Kinesis that answers: its limits and its ledger.
    pub fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// The DynamoDB that answers: its limits and its ledger.
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The faults that are injected into both.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Where the services answer.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Stops taking connections, lets answers under way finish, and ends; within two seconds whatever clients do.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, drained).await.is_err() {
            warn!("local backend stopped with answers under way");
        }
        self.tasks.shutdown().await;
    }
}

async fn listen(service: Service, port: u16) -> Result<(TcpListener, String), LocalError> {
    let refused = |source| LocalError::listen(service, port, source);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, format!("http://{address}")))
}

async fn serve(service: Service, listener: TcpListener, router: Router, stop: CancellationToken) {
    let service_of_connection = router.into_make_service_with_connect_info::<Connection>();
    let served = axum::serve(Severable(listener), service_of_connection);
    let served = served.with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        warn!(%service, %error, "local backend stopped serving");
    }
}
