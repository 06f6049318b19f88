//! What a service does reaches a collector of traces, by OTLP.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::Client;
use reqwest::header::HeaderMap;

use service::{GOOD, Service, shop_with};

/// What was sent to a collector.
type Sent = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A collector, for as long as its runtime is there.
struct Collector {
    address: SocketAddr,
    sent: Sent,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Collector {
        let sent = Sent::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(sent.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("it listens");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Collector {
            address,
            sent,
            _runtime: runtime,
        }
    }

    fn spans(&self) -> Vec<Span> {
        let sent = self.sent.lock().expect("nobody panics");
        let scopes = sent.iter().flat_map(|sent| &sent.resource_spans);
        let scopes = scopes.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn take(State(sent): State<Sent>, body: Bytes) {
    let sent_now = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    sent.lock().expect("nobody panics").push(sent_now);
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()? {
        AnyValue {
            value: Some(Value::StringValue(text)),
        } => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

/// Those of a name, which are about the pipeline unless they are parts.
fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert!(!found.is_empty(), "no span {name} among {spans:#?}");
    found
}

fn outcomes(changes: &[&Span]) -> Vec<String> {
    let outcomes = changes.iter().map(|span| text(&span.attributes, "outcome"));
    outcomes.map(|it| it.expect("it is known")).collect()
}

fn shop(mode: &str) -> String {
    let guarded = format!("parameters = {{ {mode} }}");
    shop_with("rate = 1000", &guarded) + SINK
}

#[test]
fn what_a_service_does_is_traced() {
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    let mut service = Service::start_in(
        &[("shop", &shop(GOOD))],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    service.until_phase("running");
    service.until("checkpointed", |shop| {
        shop["revision"]["checkpoints"]
            .as_array()
            .is_some_and(|made| made.len() >= 2)
    });
    service.write("shop", &shop("mode = \"trap\""));
    service.until("taken back", |shop| {
        shop["changes"]
            .as_array()
            .is_some_and(|made| made.iter().any(|it| it["outcome"] == "taken_back"))
    });
    service.write("shop", "name = ");
    service.until("refused", |shop| {
        shop["changes"]
            .as_array()
            .is_some_and(|made| made.iter().any(|it| it["outcome"] == "refused"))
    });
    let sender = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers: HeaderMap = [(
        "traceparent".parse().expect("a name"),
        format!("00-{sender}-00f067aa0ba902b7-01")
            .parse()
            .expect("a value"),
    )]
    .into_iter()
    .collect();
    let client = Client::builder().default_headers(headers).build();
    let client = client.expect("a client");
    service.ask_by(&client, "GET", "/api/v1/pipelines/shop/checkpoints", "");
    assert!(service.end(libc::SIGTERM).success());

    let spans = collector.spans();
    let changes = named(&spans, "change");
    assert_eq!(outcomes(&changes), ["held", "taken_back", "refused"]);
    for change in &changes {
        assert_eq!(
            text(&change.attributes, "pipeline").as_deref(),
            Some("shop")
        );
        let status = change.status.as_ref().map_or(0, |status| status.code);
        let failed = outcomes(&[change]) != ["held"];
        assert_eq!(status == 2, failed, "{change:#?}");
    }
    for part in ["plan", "shadow"] {
        let is_part = |span: &&&Span| changes.iter().any(|it| it.span_id == span.parent_span_id);
        let parts = named(&spans, part);
        assert_eq!(parts.iter().filter(is_part).count(), parts.len());
    }
    let checkpoints = named(&spans, "checkpoint");
    for part in ["align", "write"] {
        let parts = named(&spans, part);
        assert_eq!(parts.len(), checkpoints.len(), "{part}");
        for part in parts {
            let whole = checkpoints
                .iter()
                .find(|it| it.span_id == part.parent_span_id);
            let whole = whole.expect("it is of a checkpoint");
            assert!(whole.start_time_unix_nano <= part.start_time_unix_nano);
            assert!(part.end_time_unix_nano <= whole.end_time_unix_nano);
        }
    }
    named(&spans, "restore");
    assert!(spans.iter().all(|span| !span.name.ends_with("/readyz")));
    let asked = named(&spans, "GET /api/v1/pipelines/{name}/checkpoints");
    let asked: Vec<String> = asked
        .iter()
        .map(|span| {
            span.trace_id
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        })
        .collect();
    assert_eq!(asked, [sender]);
    let sent = collector.sent.lock().expect("nobody panics");
    let resource = sent[0].resource_spans[0].resource.as_ref();
    let resource = &resource.expect("it is sent").attributes;
    assert_eq!(text(resource, "service.name").as_deref(), Some("sluicebox"));
}

const SINK: &str = "
    [sinks.out]
    type = \"blackhole\"
    input = \"guarded\"
";

#[test]
fn a_service_runs_without_the_collector_that_it_was_told_of() {
    let nobody = Collector::start().address;
    let mut service = Service::start_in(
        &[("shop", &shop(GOOD))],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{nobody}")),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ],
    );
    service.until_phase("running");
    service.until_read(1_000);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(service.end(libc::SIGTERM).success());
    let log = fs::read_to_string(service.path("log.txt")).expect("it is there");
    let told = log.matches("traces are lost until they can be sent");
    assert_eq!(told.count(), 1, "{log}");
}
