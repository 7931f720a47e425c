//! Why a request has no answer, in the form that OpenAI's clients read.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use infalign_decode::DecodeError;
use infalign_model::ModelError;
use infalign_record::clock;
use serde_json::{Value, json};

use crate::log::without_texts;

/// A refusal or a failure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// A sentence.
    message: String,
    /// The field at fault.
    field: Option<String>,
    /// A word for programs.
    code: Option<&'static str>,
    /// What a log has in place of the message where that may tell of prompts or responses.
    logged: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), field: None, code: None, logged: None }
    }

    /// What a client has asked for wrongly.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The same, in one field.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::request(message).in_field(field)
    }

    pub(crate) fn in_field(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The server is about to end.
    pub(crate) fn ending() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("shutting_down")
    }

    /// What failures of a kind are counted by.
    pub(crate) fn kind(&self) -> &'static str {
        self.code.unwrap_or("server_error")
    }

    /// A line for whoever runs the server.
    ///
    /// - id: of the request.
    pub(crate) fn line(&self, id: &str) -> String {
        let (now, status, kind) = (clock::utc_now(), self.status.as_u16(), self.kind());
        let text = self.logged.as_ref().unwrap_or(&self.message).replace(['\n', '\r'], " ");
        format!("{now} {id} {status} {kind}: {text}")
    }

    pub(crate) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let Self { message, field, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": field, "code": code } })
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let (message, logged) = (error.to_string(), Some(without_texts(&error)));
        let internal = |message: String| Self::new(StatusCode::INTERNAL_SERVER_ERROR, message);
        let failure = match error {
            DecodeError::Setting { key, .. } => Self::field(key, message),
            DecodeError::Procedure { .. } => Self::field("procedure", message),
            // The model's own fault.
            DecodeError::Prompt {
                source: ModelError::Logits { .. } | ModelError::Other(_),
                ..
            } => internal(message),
            DecodeError::Prompt { source: source @ ModelError::TooLong { .. }, .. } => {
                Self::request(format!("{source}; shorten the prompt, or lower max_tokens"))
            }
            // The prompt's name there is the server's own.
            DecodeError::Prompt { source, .. } => Self::request(source.to_string()),
            // Weights or λ beyond all numbers: the scorers themselves were checked at the start.
            DecodeError::Scorer { .. } => Self::request(message),
            DecodeError::Reward(_) => internal(message).with_code("reward_failed"),
            DecodeError::Stopped => internal(message).with_code("engine_stopped"),
            _ => internal(message),
        };
        Self { logged, ..failure }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = self.json().to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
