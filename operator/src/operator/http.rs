//! `/healthz`, `/readyz` and `/metrics`.

use crate::context::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves until the process ends.
pub(super) async fn serve(address: SocketAddr, context: Arc<Context>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    axum::serve(listener, routes).await
}

/// Ready as soon as the process serves: a standby waiting for the Lease is as ready as the leader.
async fn ready() -> &'static str {
    "ok\n"
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    match context.metrics.text() {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new()),
    }
}
