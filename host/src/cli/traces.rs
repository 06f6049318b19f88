//! Sends spans to a collector by OTLP, if the environment names one, as OpenTelemetry says:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and the variables beside it.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self, SdkTracerProvider, SpanData};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::traces::TARGET;

/// Either names the collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// What a host is called that has no name of its own.
const SERVICE: &str = "sluicebox";
/// How long the last spans may take at the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Sends spans until it is dropped.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// If a collector is named.
    pub fn of_environment() -> Result<Option<Traces>, ExporterBuildError> {
        let is_named = |name| env::var(name).is_ok_and(|endpoint| !endpoint.is_empty());
        let is = |name, value| env::var(name).is_ok_and(|is| is.eq_ignore_ascii_case(value));
        let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
        if is_off || !ENDPOINTS.into_iter().any(is_named) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().build()?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(Exporter {
                inner: exporter,
                is_told: AtomicBool::new(false),
            });
        Ok(Some(Traces(provider.build())))
    }

    /// Takes the spans that are meant for it.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // What cannot be sent was told.
        let _ = self.0.shutdown_with_timeout(LAST_SPANS);
    }
}

/// What sends the spans, as the environment says (`OTEL_SERVICE_NAME`,
/// `OTEL_RESOURCE_ATTRIBUTES`).
fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::new("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return found;
    }
    Resource::builder().with_service_name(SERVICE).build()
}

/// Tells when spans are lost, and when no more are.
#[derive(Debug)]
struct Exporter {
    inner: SpanExporter,
    is_told: AtomicBool,
}

impl trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.inner.export(batch).await;
        let was_told = self.is_told.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_told => tracing::warn!(
                "traces are lost until they can be sent to the collector that \
                 OTEL_EXPORTER_OTLP_ENDPOINT names: {error}"
            ),
            Ok(()) if was_told => tracing::info!("traces are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
