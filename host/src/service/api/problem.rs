//! Answers where something is wrong, by RFC 9457.

use std::fmt::Display;
use std::io;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::quantity::show_bytes;

/// Why a request is not answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    status: u16,
    /// Its words.
    title: &'static str,
    /// What is wrong, and what to do.
    detail: String,
    /// For programs; codes stay the same.
    code: Code,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    Refused,
    TooMany,
    Internal,
    Timeout,
}

/// Of a file of the service.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::internal(&error)
    }
}

impl Problem {
    fn new(status: StatusCode, code: Code, detail: impl Display) -> Problem {
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.to_string(),
            code,
        }
    }

    pub fn bad_request(detail: &str) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, Code::BadRequest, detail)
    }

    pub fn unauthorized(detail: &str) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
    }

    pub fn forbidden(detail: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail)
    }

    pub fn not_found(detail: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound, detail)
    }

    pub fn method() -> Problem {
        let detail = "this path has other methods: /api/v1/openapi.json lists them";
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::MethodNotAllowed,
            detail,
        )
    }

    pub fn conflict(detail: &str) -> Problem {
        Problem::new(StatusCode::CONFLICT, Code::Conflict, detail)
    }

    /// The pipeline's file has mistakes, or would lose state.
    pub fn refused(detail: &str) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Refused, detail)
    }

    pub fn too_many(detail: &str) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::TooMany, detail)
    }

    pub fn timeout(detail: &str) -> Problem {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, Code::Timeout, detail)
    }

    /// What went wrong is logged, too: it is for the host's operator.
    pub fn internal(error: &dyn Display) -> Problem {
        tracing::error!("a request cannot be answered: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, error)
    }

    /// The body, which has `bytes_max` at most, cannot be read.
    pub fn body(rejection: &BytesRejection, bytes_max: u64) -> Problem {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::TooLarge,
                format!("the body is larger than {}", show_bytes(bytes_max)),
            ),
            _ => Problem::bad_request("the body ends too early, or does not come in time"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let json = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut answer = (status, json, body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // Browsers know the second one, and ask their user.
            for scheme in ["Bearer", "Basic realm=\"sluicebox, token as password\""] {
                let scheme = HeaderValue::from_static(scheme);
                answer
                    .headers_mut()
                    .append(header::WWW_AUTHENTICATE, scheme);
            }
        }
        answer
    }
}
