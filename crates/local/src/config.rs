//! Settings of the local backend, where it can be reached, and what can keep it from starting.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::faults::FaultScript;
use crate::kinesis::KinesisConfig;
use crate::limits::{DynamoDbLimits, KinesisLimits};

/// Settings of a [`LocalServer`](crate::LocalServer). Both services listen on 127.0.0.1 only.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Port of Kinesis; 0 (the default) takes any free one.
    pub kinesis_port: u16,
    /// Port of DynamoDB; 0 (the default) takes any free one.
    pub dynamodb_port: u16,
    /// Folder for DynamoDB's data, made if it is not there. `None` (the default) keeps everything in memory. Kinesis data is in
    /// memory always.
    pub dir: Option<PathBuf>,
    /// Settings of Kinesis.
    pub kinesis: KinesisConfig,
    /// What tables are held to; nothing by default.
    pub dynamodb_limits: DynamoDbLimits,
    /// What streams are held to; nothing by default.
    pub kinesis_limits: KinesisLimits,
    /// Faults to inject into both services; none by default. Their time begins when the server answers.
    pub faults: FaultScript,
    /// File for a journal of what both services accept; none by default.
    pub journal: Option<PathBuf>,
    /// The wall clock of both services; the machine's by default.
    pub clock: Arc<dyn Clock>,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            kinesis_port: 0,
            dynamodb_port: 0,
            dir: None,
            kinesis: KinesisConfig::default(),
            dynamodb_limits: DynamoDbLimits::default(),
            kinesis_limits: KinesisLimits::default(),
            faults: FaultScript::default(),
            journal: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Where the services of a running [`LocalServer`](crate::LocalServer) answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `http://127.0.0.1:PORT`, for the endpoint URL of a Kinesis client.
    pub kinesis: String,
    /// `http://127.0.0.1:PORT`, for the endpoint URL of a DynamoDB client.
    pub dynamodb: String,
}

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Kinesis Data Streams.
    Kinesis,
    /// DynamoDB.
    DynamoDb,
}

impl Service {
    fn setting(self) -> &'static str {
        match self {
            Self::Kinesis => "kinesis_port",
            Self::DynamoDb => "dynamodb_port",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kinesis => "kinesis",
            Self::DynamoDb => "dynamodb",
        })
    }
}

/// Why the local backend did not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another program listens on the port.
    #[error(
        "port {port} for the local {service} is in use: stop what listens there, choose another {setting}, \
         or use 0 for any free port",
        setting = service.setting()
    )]
    PortInUse {
        /// Whose port it is.
        service: Service,
        /// The port asked for.
        port: u16,
    },
    /// The port could not be opened for another reason.
    #[error(
        "cannot listen on 127.0.0.1:{port} for the local {service}: choose another {setting} (below 1024 \
         needs privileges), or 0 for any free port",
        setting = service.setting()
    )]
    Listen {
        /// Whose port it is.
        service: Service,
        /// The port asked for.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data folder cannot be made or written to.
    #[error("cannot write to the data folder {}: make it writable, or give another folder", dir.display())]
    FolderNotWritable {
        /// The folder asked for.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal {}: give a file in a folder that is there and can be written to", path.display())]
    Journal {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database file cannot be opened.
    #[error(
        "cannot open the database {}: if it is damaged or from another version, move it away and start again",
        path.display()
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<dynoxide::DynoxideError>,
    },
}

impl LocalError {
    /// Tells a port in use, which an operator can mend, from any other failure to listen.
    pub(crate) fn listen(service: Service, port: u16, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::PortInUse { service, port }
        } else {
            Self::Listen { service, port, source }
        }
    }
}
