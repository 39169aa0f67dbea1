//! The SDK's HTTP client: each request is one message on the worker's link.

use std::sync::Arc;

use ::http::Response;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde_json::Value;

use super::super::fleet::APPLICATION;
use super::super::link::{Link, Lost};
use super::super::script::Service;
use super::backend::{Backend, Call, workers_table};
use super::witness::{self, Sender};
use super::{Bend, refusal};

/// The HTTP client of one worker.
#[derive(Debug, Clone)]
pub(super) struct LinkHttp {
    /// The worker's way to the services.
    pub(super) link: Arc<Link>,
    /// The services.
    pub(super) backend: Arc<Backend>,
    /// A planted bug.
    pub(super) bend: Option<Bend>,
}

impl HttpClient for LinkHttp {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for LinkHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let mut call = read(request)?;
            if let Some(bend) = this.bend {
                bend(&call.operation, &mut call.body);
            }
            let answer = this.send(call).await?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl LinkHttp {
    async fn send(self, call: Call) -> Result<Response<Bytes>, ConnectorError> {
        let Self { link, backend, .. } = self;
        let service = call.service;
        // What the sender knows is what it knew when it sent the request, not when a late one lands.
        let sight = link.world.with(|world| world.referee.sight(&link.worker));
        let me = Sender { id: link.worker.clone(), sight };
        let answer = if call.writes() {
            let apply = move |world: &mut _, now| witness::answer(&backend, world, &me, call, now);
            link.write(service, apply).await
        } else {
            link.read(service, |world, now| witness::answer(&backend, world, &me, call, now)).await
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Lost::Throttled) => Ok(link.world.with(|world| refusal::throttled(service, &mut world.rng))),
            Err(Lost::Failed) => Ok(link.world.with(|world| refusal::failed(service, &mut world.rng))),
            Err(lost @ Lost::Unknown) => Err(ConnectorError::io(lost.into())),
        }
    }
}

/// Takes a request apart.
fn read(request: HttpRequest) -> Result<Call, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let body = serde_json::from_slice(body.bytes().unwrap_or_default());
    let body: Value = body.map_err(|error| ConnectorError::user(error.into()))?;
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.split_once('.')).map(|(_, operation)| operation);
    let operation = operation.unwrap_or_default().to_owned();
    let service = if parts.uri.host().is_some_and(|host| host.starts_with("kinesis")) {
        Service::Stream
    } else {
        table_of(&body)
    };
    Ok(Call { service, operation, headers: parts.headers, body })
}

/// Which table a request is about.
fn table_of(body: &Value) -> Service {
    match body["TableName"].as_str() {
        Some(APPLICATION) => Service::Leases,
        Some(table) if table == workers_table() => Service::Workers,
        Some(_) | None => Service::Items,
    }
}
