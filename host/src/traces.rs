//! Spans of what a host does, for whoever follows it by OpenTelemetry: starts, checkpoints,
//! changes and requests, with their parts. There is none for rows: it would cost more than
//! they do.
//!
//! Where nobody wants them, they are not made. The names of fields that OpenTelemetry knows
//! are those of its semantic conventions.

use std::fmt::Display;

use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// By which they are told from the spans that lines of the log are in.
pub const TARGET: &str = "sluicebox::traces";

/// Makes a span. The log does not show it, whose level is higher.
macro_rules! span {
    ($name:literal $(, $($fields:tt)+)?) => {
        tracing::trace_span!(
            target: $crate::traces::TARGET,
            $name,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
            $($($fields)+)?
        )
    };
}

pub(crate) use span;

/// Notes that what a span is about has failed.
pub fn fail(span: &Span, why: &dyn Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", why.to_string());
}

/// Has a span be part of what the sender of a request does, if the request says so
/// (`traceparent`, W3C Trace Context).
pub fn follow(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let sender = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if sender.span().span_context().is_valid() {
        // It cannot be refused: the span has not been entered.
        let _ = span.set_parent(sender);
    }
}
