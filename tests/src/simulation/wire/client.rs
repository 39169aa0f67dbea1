//! SDK clients of one worker: its clock and its wall time, its link, nothing cached, nothing random but what is seeded.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{
    AsyncSleep, Credentials, IdentityCache, SharedAsyncSleep, SharedCredentialsProvider, Sleep,
};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use sluicegate_lease::Clock;

use super::super::link::Link;
use super::super::script::BEGIN_MS;
use super::super::world::World;
use super::Wiring;
use super::backend::Backend;
use super::http::LinkHttp;

/// What the clients of one worker have in common.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    /// The worker's way to the services.
    pub(super) link: Arc<Link>,
    /// The services.
    pub(super) backend: Arc<Backend>,
    /// How the SDK is set.
    pub(super) wiring: Wiring,
    /// How far the worker's wall clock is off, in seconds.
    pub(super) wall_offset: i64,
}

impl Clients {
    /// A client of the tables whose calls end in time.
    pub(super) fn dynamodb(&self, call_timeout: Duration) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.config(call_timeout));
        aws_sdk_dynamodb::Client::from_conf(config.endpoint_url("http://dynamodb.simulated").build())
    }

    /// A client of the stream.
    pub(super) fn kinesis(&self) -> aws_sdk_kinesis::Client {
        let config = aws_sdk_kinesis::config::Builder::from(&self.config(self.wiring.call_timeout));
        aws_sdk_kinesis::Client::from_conf(config.endpoint_url("http://kinesis.simulated").build())
    }

    fn config(&self, call_timeout: Duration) -> SdkConfig {
        let credentials = Credentials::new("simulated", "simulated", None, None, "simulated");
        let retry = match self.wiring.attempts {
            0 | 1 => RetryConfig::disabled(),
            attempts => RetryConfig::standard().with_max_attempts(attempts),
        };
        // With retries of its own the SDK must give up on an attempt before it gives up on the call.
        let timeout = TimeoutConfig::builder().operation_timeout(call_timeout * self.wiring.attempts.max(1));
        let http = LinkHttp {
            link: Arc::clone(&self.link),
            backend: Arc::clone(&self.backend),
            bend: self.wiring.bend,
        };
        let wall = WallTime { world: Arc::clone(&self.link.world), offset: self.wall_offset };
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .identity_cache(IdentityCache::no_cache())
            .http_client(http)
            .sleep_impl(SharedAsyncSleep::new(WorkerSleep(self.link.clock.clone())))
            .time_source(SharedTimeSource::new(wall))
            .retry_config(retry)
            .timeout_config(timeout.operation_attempt_timeout(call_timeout).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build()
    }
}

/// Sleeps on the worker's clock: no time-out of the SDK passes while the process stands still.
#[derive(Debug)]
struct WorkerSleep(Clock);

impl AsyncSleep for WorkerSleep {
    fn sleep(&self, duration: Duration) -> Sleep {
        let clock = self.0.clone();
        Sleep::new(async move { clock.sleep(duration).await })
    }
}

/// The worker's wall time.
#[derive(Debug)]
struct WallTime {
    world: Arc<World>,
    offset: i64,
}

impl TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        let begin = u64::try_from(BEGIN_MS).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(begin) + self.world.now();
        let off = Duration::from_secs(self.offset.unsigned_abs());
        if self.offset < 0 { now - off } else { now + off }
    }
}
