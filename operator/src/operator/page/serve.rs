//! Starting the page.

use super::access::Access;
use super::api::{self, Api};
use super::files;
use super::headers::protect;
use super::listener::{BoundedListener, Peer};
use super::stores::Stores;
use crate::context::Context;
use axum::middleware::from_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of the page.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PageArgs {
    /// Address of the page, such as 127.0.0.1:8090; absent: no page. It is served without TLS: use `kubectl port-forward`, or
    /// an ingress with TLS
    #[arg(long, env = "PGRAIL_PAGE_BIND_ADDRESS")]
    page_bind_address: Option<SocketAddr>,
    /// Audiences of the tokens that the page accepts, as in `kubectl create token NAME --audience pgrail`. An empty value:
    /// tokens for the API server itself
    #[arg(long, env = "PGRAIL_PAGE_AUDIENCES", value_delimiter = ',', default_value = "pgrail")]
    page_audiences: Vec<String>,
}

/// The page, if one is wanted: its stores, and what serves it until `stop`. Its address is bound already.
pub(crate) async fn page(
    args: PageArgs,
    context: &Arc<Context>,
    stop: &CancellationToken,
) -> io::Result<Option<(Arc<Stores>, impl Future<Output = io::Result<()>> + use<>)>> {
    let Some(address) = args.page_bind_address else { return Ok(None) };
    let listener = BoundedListener::bind(address).await?;
    let audiences: Vec<String> = args.page_audiences.into_iter().filter(|audience| !audience.is_empty()).collect();
    let (stores, watches) = Stores::new(context, stop);
    let standby = Arc::clone(&stores).stand_by(Arc::clone(context));
    let api = Arc::new(Api {
        context: Arc::clone(context),
        access: Access::new(context.client.clone(), audiences),
        stores: Arc::clone(&stores),
    });
    let served = async move {
        tracing::info!(%address, "the page is served");
        let routes = files::routes().merge(api::routes(api)).layer(from_fn(protect));
        let serve = axum::serve(listener, routes.into_make_service_with_connect_info::<Peer>());
        tokio::select! {
            served = serve.into_future() => served,
            ((), ()) = async { futures::join!(watches, standby) } => std::future::pending().await,
        }
    };
    Ok(Some((stores, served)))
}
