//! AWS clients: one configuration and one HTTP client a runtime, the SDK's own retries off, clear errors at start.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use sluicegate_worker::Metrics;
use sluicegate_worker::kinesis::answer_gate::AnswerGate;

use crate::exit::bad_config;
use crate::metered::Metered;

/// Where `sluicegate local` listens unless told otherwise, and where `--embedded` looks.
pub(crate) const LOCAL_KINESIS_PORT: u16 = 4567;
/// See [`LOCAL_KINESIS_PORT`].
pub(crate) const LOCAL_DYNAMODB_PORT: u16 = 8000;

/// How AWS, or what stands in for it, is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AwsArgs {
    /// Use the embedded backend of `sluicegate local` on this machine instead of AWS (its default ports, or
    /// AWS_ENDPOINT_URL_KINESIS and AWS_ENDPOINT_URL_DYNAMODB)
    #[cfg(feature = "embedded")]
    #[arg(long, help_heading = "AWS")]
    pub(crate) embedded: bool,
    /// AWS region; default: the SDK's (AWS_REGION, the profile)
    #[arg(long, help_heading = "AWS")]
    pub(crate) region: Option<String>,
}

impl AwsArgs {
    /// Whether the embedded backend stands in for AWS.
    pub(crate) fn is_embedded(&self) -> bool {
        #[cfg(feature = "embedded")]
        return self.embedded;
        #[cfg(not(feature = "embedded"))]
        return false;
    }
}

/// Longest one call takes before it counts as unanswered.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One configuration for all clients of a runtime.
#[derive(Debug, Clone)]
pub(crate) struct Aws {
    config: SdkConfig,
    kinesis_endpoint: Option<String>,
    dynamodb_endpoint: Option<String>,
}

impl Aws {
    /// Reads the SDK's configuration and makes sure that there are a region and credentials.
    pub(crate) async fn load(args: &AwsArgs) -> anyhow::Result<Self> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(CALL_TIMEOUT));
        if let Some(region) = &args.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if args.is_embedded() {
            // The embedded backend takes any credentials; not looking for real ones saves seconds.
            loader =
                loader.credentials_provider(Credentials::new("embedded", "embedded", None, None, "embedded"));
            if args.region.is_none() {
                loader = loader.region(Region::new("us-east-1"));
            }
        }
        let config = loader.load().await;
        check_region(&config)?;
        if !args.is_embedded() {
            check_credentials(config.credentials_provider()).await?;
        }
        let mut aws = Self { config, kinesis_endpoint: None, dynamodb_endpoint: None };
        if args.is_embedded() {
            aws.kinesis_endpoint = Some(embedded("AWS_ENDPOINT_URL_KINESIS", LOCAL_KINESIS_PORT).await?);
            aws.dynamodb_endpoint = Some(embedded("AWS_ENDPOINT_URL_DYNAMODB", LOCAL_DYNAMODB_PORT).await?);
        }
        Ok(aws)
    }

    /// The embedded backend at these endpoints.
    #[cfg(feature = "embedded")]
    pub(crate) fn at(kinesis: String, dynamodb: String) -> Self {
        let credentials = Credentials::new("embedded", "embedded", None, None, "embedded");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(CALL_TIMEOUT))
            .build();
        Self { config, kinesis_endpoint: Some(kinesis), dynamodb_endpoint: Some(dynamodb) }
    }

    /// A Kinesis client.
    pub(crate) fn kinesis(&self) -> aws_sdk_kinesis::Client {
        let builder = aws_sdk_kinesis::config::Builder::from(&self.config);
        let builder = match &self.kinesis_endpoint {
            Some(url) => builder.endpoint_url(url),
            None => builder,
        };
        let inner = self.config.http_client().unwrap_or_else(http_client);
        aws_sdk_kinesis::Client::from_conf(builder.http_client(AnswerGate::new(inner)).build())
    }

    /// A DynamoDB client.
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::from_conf(self.dynamodb_config().build())
    }

    /// A DynamoDB client whose requests are counted as those to this table.
    pub(crate) fn dynamodb_for(&self, table: &'static str, metrics: &Metrics) -> aws_sdk_dynamodb::Client {
        let inner = self.config.http_client().unwrap_or_else(http_client);
        let counted = Metered { inner, table, metrics: metrics.clone() };
        aws_sdk_dynamodb::Client::from_conf(self.dynamodb_config().http_client(counted).build())
    }

    /// The same with an HTTP client of its own, for another runtime, whose calls end in time.
    pub(crate) fn dynamodb_alone(
        &self,
        call_timeout: Duration,
        table: &'static str,
        metrics: &Metrics,
    ) -> aws_sdk_dynamodb::Client {
        let counted = Metered { inner: http_client(), table, metrics: metrics.clone() };
        let config = self.dynamodb_config().http_client(counted).timeout_config(timeouts(call_timeout));
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    fn dynamodb_config(&self) -> aws_sdk_dynamodb::config::Builder {
        let builder = aws_sdk_dynamodb::config::Builder::from(&self.config);
        match &self.dynamodb_endpoint {
            Some(url) => builder.endpoint_url(url),
            None => builder,
        }
    }
}

/// Where the embedded backend is, once something answers there.
async fn embedded(variable: &str, port: u16) -> anyhow::Result<String> {
    let url = endpoint_variable(variable).unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let answers = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address)).await;
    if !matches!(answers, Ok(Ok(_))) {
        bail!("no embedded backend answers at {url}: start `sluicegate local` in another terminal");
    }
    Ok(url)
}

fn timeouts(call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(call).build()
}

/// The SDK reads it by itself; here only its presence counts.
#[expect(clippy::disallowed_methods, reason = "the SDK's own variables, read where AWS is configured")]
fn endpoint_variable(name: &str) -> Option<String> {
    std::env::var(name).or_else(|_unset| std::env::var("AWS_ENDPOINT_URL")).ok()
}

/// The region that was named, without asking the machine for it; any if none was.
#[expect(clippy::disallowed_methods, reason = "the SDK's own variables, read where AWS is configured")]
pub(crate) fn named_region(args: &AwsArgs) -> String {
    let variable = || std::env::var("AWS_REGION").or_else(|_unset| std::env::var("AWS_DEFAULT_REGION")).ok();
    args.region.clone().or_else(variable).unwrap_or_else(|| "*".to_owned())
}

fn check_region(config: &SdkConfig) -> anyhow::Result<()> {
    if config.region().is_none() {
        let embedded = if cfg!(feature = "embedded") { ", or use --embedded" } else { "" };
        return Err(bad_config(format!("no AWS region: set AWS_REGION or give --region{embedded}")));
    }
    Ok(())
}

async fn check_credentials(provider: Option<SharedCredentialsProvider>) -> anyhow::Result<()> {
    let Some(provider) = provider else { bail!(NO_CREDENTIALS) };
    provider.provide_credentials().await.map(drop).context(NO_CREDENTIALS)
}

const NO_CREDENTIALS: &str = "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile with AWS_PROFILE, or run with a role (EKS: annotate the service account)";

/// An HTTP client that makes its TLS half when the first https request comes: a machine without CA certificates can
/// use http endpoints.
fn http_client() -> SharedHttpClient {
    let http = aws_smithy_http_client::Builder::new().build_http();
    SharedHttpClient::new(AnyScheme(Arc::new(Schemes { http, https: OnceLock::new() })))
}

#[derive(Debug, Clone)]
struct AnyScheme(Arc<Schemes>);

#[derive(Debug)]
struct Schemes {
    http: SharedHttpClient,
    https: OnceLock<Option<SharedHttpClient>>,
}

impl Schemes {
    fn of(&self, request: &HttpRequest) -> Option<SharedHttpClient> {
        if request.uri().starts_with("http:") {
            return Some(self.http.clone());
        }
        self.https.get_or_init(https_client).clone()
    }
}

/// `None` on a machine without CA certificates, where making the client would panic.
fn https_client() -> Option<SharedHttpClient> {
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return None;
    }
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    Some(aws_smithy_http_client::Builder::new().tls_provider(provider).build_https())
}

impl HttpClient for AnyScheme {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = AnyConnector {
            schemes: Arc::clone(&self.0),
            settings: settings.clone(),
            components: components.clone(),
        };
        SharedHttpConnector::new(connector)
    }
}

#[derive(Debug)]
struct AnyConnector {
    schemes: Arc<Schemes>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for AnyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match self.schemes.of(&request) {
            Some(client) => client.http_connector(&self.settings, &self.components).call(request),
            None => HttpConnectorFuture::ready(Err(ConnectorError::user(NO_CERTIFICATES.into()))),
        }
    }
}

const NO_CERTIFICATES: &str = "this machine has no CA certificates, so https cannot be trusted: install the package ca-certificates, or name a bundle in SSL_CERT_FILE";
