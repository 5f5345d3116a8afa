//! Why a request is not answered, as JSON with a message that the page shows.

use super::access::Refused;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// No valid token; with the audiences that one must have.
    Unauthenticated {
        message: &'static str,
        audiences: Vec<String>,
    },
    /// The user may not see it. Whether it exists is not said.
    Forbidden(String),
    NotFound(String),
    TooManyFailures,
    /// The apiserver does not answer.
    Unavailable,
    /// The objects are not all listed yet.
    NotListed,
    /// Only the leader knows it.
    Standby,
}

impl ApiError {
    /// `audiences`: those that a token must have one of.
    pub(super) fn refused(refused: Refused, audiences: &[String]) -> Self {
        let unauthenticated = |message| Self::Unauthenticated { message, audiences: audiences.to_vec() };
        match refused {
            Refused::NoToken => unauthenticated("a Kubernetes token is required"),
            Refused::InvalidToken => {
                unauthenticated("the API server does not accept this token: it is expired, or of another audience")
            }
            Refused::TooManyFailures => Self::TooManyFailures,
            Refused::Unavailable => Self::Unavailable,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, reason, message) = match &self {
            Self::Unauthenticated { message, .. } => {
                (StatusCode::UNAUTHORIZED, "Unauthenticated", (*message).to_owned())
            }
            Self::Forbidden(message) => (StatusCode::FORBIDDEN, "Forbidden", message.clone()),
            Self::NotFound(message) => (StatusCode::NOT_FOUND, "NotFound", message.clone()),
            Self::TooManyFailures => {
                let message = "too many tokens were not valid: try again in a minute";
                (StatusCode::TOO_MANY_REQUESTS, "TooManyFailures", message.to_owned())
            }
            Self::Unavailable => {
                let message = "the API server does not answer, so that access cannot be checked";
                (StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message.to_owned())
            }
            Self::NotListed => {
                let message = "pgrail is starting: the objects are not all listed yet";
                (StatusCode::SERVICE_UNAVAILABLE, "NotListed", message.to_owned())
            }
            Self::Standby => {
                let message = "only the leader reads the catalogs of databases, and this process is not the leader";
                (StatusCode::SERVICE_UNAVAILABLE, "Standby", message.to_owned())
            }
        };
        let mut body = json!({"reason": reason, "message": message});
        if let Self::Unauthenticated { audiences, .. } = &self {
            body["audiences"] = json!(audiences);
        }
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthenticated { .. } => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooManyFailures => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            _ => {}
        }
        response
    }
}
