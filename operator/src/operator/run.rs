//! Starting and stopping the operator.

use super::http;
use super::leader::{Election, OPERATOR_LEASE, POLICIES_LEASE};
use super::page::{self, PageArgs};
use crate::agent::config::AddressConfig;
use crate::allowed_stores::{AllowedStores, StorePatternError};
use crate::context::Context;
use crate::controllers::guardrail_policy::Watches;
use crate::controllers::{
    backup_schedule, checks::Checks, database_backup, database_restore, guard_exemption, guardrail_policy,
    protected_database, table_guard,
};
use crate::database::{AllowedHosts, Databases, Limits, PatternError};
use crate::kubernetes::backoff::Backoff;
use crate::kubernetes::events::Events;
use crate::kubernetes::text::chain;
use crate::kubernetes::watch::{watch, watch_only};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::signals::stop_requested;
use crate::version::VERSION;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, ResourceExt};
use pgrail_postgres::AddressPolicy;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `pgrail operator`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail operator --namespace pgrail-system --image pgrail:0.1.0")]
pub(crate) struct OperatorArgs {
    /// Namespace that the operator runs in: its Lease lives there
    #[arg(long, env = "PGRAIL_NAMESPACE", default_value = "pgrail-system")]
    namespace: String,
    /// Look after one namespace only
    #[arg(long, env = "PGRAIL_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Run GuardrailPolicies only, for all namespaces: beside operators that are limited to one namespace each. Such an
    /// operator connects to no database and reads no Secret; it does not know when another operator last checked one
    #[arg(long, env = "PGRAIL_ONLY_POLICIES", conflicts_with = "watch_namespace")]
    only_policies: bool,
    /// Name of this process in the Lease and in Events; usually the pod's
    #[arg(long, env = "PGRAIL_IDENTITY", default_value = "pgrail")]
    identity: String,
    /// Image of the pods that make backups: pgrail's own
    #[arg(long, env = "PGRAIL_IMAGE", default_value = concat!("ghcr.io/pgrail/pgrail:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Pull policy of that image
    #[arg(long, env = "PGRAIL_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// Hosts that databases may have besides Services of their own namespace: names with `*`, addresses, networks
    #[arg(long, env = "PGRAIL_ALLOWED_HOSTS", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// Stores that dumps may be sent to, as URLs with `*`: s3://bucket/*, gs://bucket/*, az://container/*, file:///*, or
    /// with an endpoint https://host:port/bucket/*; all if absent
    #[arg(long, env = "PGRAIL_ALLOWED_STORES", value_delimiter = ',')]
    allowed_stores: Vec<String>,
    /// Connections to one PostgreSQL server at the same time, for all its databases together; never more than 5 % of its
    /// max_connections, and at least 1
    #[arg(long, env = "PGRAIL_MAX_CONNECTIONS_PER_SERVER", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    max_connections_per_server: u16,
    /// Address of `/healthz`, `/readyz` and `/metrics`
    #[arg(long, env = "PGRAIL_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
    #[command(flatten)]
    page: PageArgs,
}

/// Why the operator could not start or had to stop.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("--allowed-hosts cannot be used")]
    AllowedHosts(#[source] PatternError),
    #[error("--allowed-stores cannot be used")]
    AllowedStores(#[source] StorePatternError),
    #[error("no Kubernetes to talk to: neither a service account nor a kubeconfig")]
    Configuration(#[source] kube::config::InferConfigError),
    #[error("no client for the apiserver")]
    Client(#[source] kube::Error),
    #[error("could not read the namespace kube-system, whose UID names the cluster")]
    ClusterId(#[source] kube::Error),
    #[error("could not serve /healthz and /metrics")]
    Http(#[source] std::io::Error),
    #[error("could not serve the page")]
    Page(#[source] std::io::Error),
    #[error("no longer the leader")]
    Leader(#[source] super::leader::Lost),
}

/// Runs the controllers until SIGTERM, SIGINT, or the loss of the Lease.
pub(crate) async fn run(args: OperatorArgs) -> ExitCode {
    match operate(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn operate(args: OperatorArgs) -> Result<(), RunError> {
    let allowed_hosts = AllowedHosts::parse(&args.allowed_hosts).map_err(RunError::AllowedHosts)?;
    let allowed_stores = AllowedStores::parse(&args.allowed_stores).map_err(RunError::AllowedStores)?;
    let config = Config::infer().await.map_err(RunError::Configuration)?;
    let apiserver_addresses = addresses_of(&config).await;
    let client = Client::try_from(config).map_err(RunError::Client)?;
    let cluster_id = cluster_id(&client).await?;
    let (http_address, only_policies) = (args.http_address, args.only_policies);
    let settings = Settings {
        namespace: args.namespace,
        watch_namespace: args.watch_namespace,
        identity: args.identity,
        image: args.image,
        image_pull_policy: args.image_pull_policy,
        allowed_hosts: allowed_hosts.clone(),
        allowed_stores,
        addresses: AddressConfig {
            refused: apiserver_addresses.clone(),
            allowed: allowed_hosts.networks().iter().map(ToString::to_string).collect(),
        },
    };
    let limits = Limits {
        addresses: AddressPolicy::restricted(apiserver_addresses, allowed_hosts.networks().to_vec()),
        allowed_hosts,
        per_server: usize::from(args.max_connections_per_server),
    };
    let clock = Timestamp::now;
    let lease = if only_policies { POLICIES_LEASE } else { OPERATOR_LEASE };
    let mut election = Election::new(client.clone(), &settings.namespace, lease, settings.identity.clone(), clock);
    let context = Arc::new(Context {
        events: Events::new(client.clone(), settings.identity.clone()),
        databases: Databases::new(client.clone(), limits, clock),
        client,
        settings,
        cluster_id,
        backoff: Backoff::default(),
        metrics: Metrics::default(),
        clock,
    });
    tracing::info!(version = VERSION, cluster_id = context.cluster_id, "pgrail starts");

    let stop = CancellationToken::new();
    // Bound before `/readyz` answers.
    let (shown, page) = match page::page(args.page, &context, &stop).await.map_err(RunError::Page)? {
        Some((stores, served)) => (Some(stores), served.map(|served| served.map_err(RunError::Page)).boxed_local()),
        None => (None, futures::future::pending().boxed_local()),
    };
    let shown = shown.as_deref();
    let http = http::serve(http_address, Arc::clone(&context)).map(|served| served.map_err(RunError::Http));
    let work = async {
        tokio::select! {
            () = election.acquire() => {}
            () = stop_requested() => return Ok(()),
        }
        tracing::info!("leader: the controllers start");
        let mut controllers = if only_policies {
            policies(&context, shown, &stop).boxed_local()
        } else {
            controllers(&context, shown, &stop).boxed_local()
        };
        let lost = tokio::select! {
            () = &mut controllers => None,
            lost = election.hold() => Some(lost),
            () = stop_requested() => None,
        };
        if let Some(lost) = lost {
            return Err(RunError::Leader(lost));
        }
        tracing::info!("stopping: reconciles under way are finished first");
        stop.cancel();
        controllers.await;
        election.release().await;
        Ok(())
    };
    tokio::select! {
        served = http => served,
        served = page => served,
        worked = work => worked,
    }
}

/// All controllers, until `stop`.
async fn controllers(context: &Arc<Context>, shown: Option<&page::Stores>, stop: &CancellationToken) {
    let (databases, database_watch) = watch(context.watched());
    let (guards, guard_watch) = watch(context.watched());
    let (schedules, schedule_watch) = watch(context.watched());
    let (backups, backup_watch) = watch(context.watched());
    let checks = Arc::new(Checks::new(context.now()));
    let watches = Watches {
        databases: &database_watch,
        guards: &guard_watch,
        schedules: &schedule_watch,
        backups: &backup_watch,
    };
    if let Some(stores) = shown {
        stores.lead(&watches, Some(Arc::clone(&checks)), context);
    }
    let graphs = shown.map(page::Stores::graphs);
    let policies = match &context.settings.watch_namespace {
        None => guardrail_policy::run(&watches, Some(Arc::clone(&checks)), context, stop.clone()).boxed(),
        Some(namespace) => {
            tracing::warn!(
                namespace,
                "limited to one namespace: GuardrailPolicies are not checked by this operator, except their limits of \
                 exemptions; run another operator with --only-policies"
            );
            futures::future::ready(()).boxed()
        }
    };
    futures::join!(
        protected_database::run(
            databases,
            &database_watch,
            &guard_watch,
            Arc::clone(&checks),
            graphs,
            context,
            stop.clone()
        ),
        table_guard::run(guards, &guard_watch, &database_watch, checks, context, stop.clone()),
        guard_exemption::run(&guard_watch, context, stop.clone()),
        backup_schedule::run(schedules, &schedule_watch, &backup_watch, &database_watch, context, stop.clone()),
        database_backup::run(backups, context, stop.clone()),
        database_restore::run(context, stop.clone()),
        policies,
    );
}

/// The controller of policies alone, until `stop`.
async fn policies(context: &Arc<Context>, shown: Option<&page::Stores>, stop: &CancellationToken) {
    let (databases, database_watch) = watch_only(context.watched(), stop.clone());
    let (guards, guard_watch) = watch_only(context.watched(), stop.clone());
    let (schedules, schedule_watch) = watch_only(context.watched(), stop.clone());
    let (backups, backup_watch) = watch_only(context.watched(), stop.clone());
    let watches = Watches {
        databases: &database_watch,
        guards: &guard_watch,
        schedules: &schedule_watch,
        backups: &backup_watch,
    };
    if let Some(stores) = shown {
        stores.lead(&watches, None, context);
    }
    let policies = guardrail_policy::run(&watches, None, context, stop.clone());
    futures::join!(databases, guards, schedules, backups, policies);
}

async fn cluster_id(client: &Client) -> Result<String, RunError> {
    let namespace = Api::<Namespace>::all(client.clone()).get("kube-system").await.map_err(RunError::ClusterId)?;
    Ok(namespace.uid().unwrap_or_default())
}

/// Where the apiserver is: no database may claim to be there.
async fn addresses_of(config: &Config) -> Vec<IpAddr> {
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "the apiserver's host does not resolve");
            Vec::new()
        }
    }
}
