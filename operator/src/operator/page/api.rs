//! `/api/v1`: what the page shows, as JSON. Every answer is for one user: no object that he may not read is in it.

use super::access::{Access, Right, User};
use super::error::ApiError;
use super::listener::Peer;
use super::stores::{Fleet, Stores};
use super::view::{BackupView, DatabaseView, GuardView, RestoreView, ScheduleView};
use crate::context::Context;
use crate::controllers::guardrail_policy::compliance::{self, Policies, Row};
use crate::controllers::guardrail_policy::fleet::Index;
use crate::kubernetes::watch::{Store, Watched};
use crate::version::VERSION;
use axum::Json;
use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, header};
use axum::routing::get;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgrail_crds::ProtectedDatabase;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Backups and restores of one answer: the newest.
const MOST: usize = 500;
/// The kinds that compliance is evaluated from, besides the database.
const EVALUATED_FROM: [&str; 3] = ["tableguards", "backupschedules", "databasebackups"];
const DATABASES: &str = "protecteddatabases";

/// What answers requests.
pub(super) struct Api {
    pub(super) context: Arc<Context>,
    pub(super) access: Access,
    pub(super) stores: Arc<Stores>,
}

type Answer = Result<Json<Value>, ApiError>;
type Request<'a> = (State<Arc<Api>>, ConnectInfo<Peer>, HeaderMap);

pub(super) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/session", get(session))
        .route("/api/v1/fleet", get(fleet))
        .route("/api/v1/databases/{namespace}/{name}", get(database))
        .route("/api/v1/databases/{namespace}/{name}/graph", get(graph))
        .route("/api/v1/databases/{namespace}/{name}/guards", get(guards))
        .route("/api/v1/databases/{namespace}/{name}/backups", get(backups))
        .route("/api/v1/databases/{namespace}/{name}/restores", get(restores))
        .fallback(async || ApiError::NotFound("no such path".to_owned()))
        .with_state(api)
}

async fn session((State(api), peer, headers): Request<'_>) -> Answer {
    let user = api.user(&peer, &headers).await?;
    Ok(Json(json!({"user": user.name(), "version": VERSION})))
}

/// Every database that the user may `get` and `list`, worst first.
async fn fleet((State(api), peer, headers): Request<'_>) -> Answer {
    let user = api.user(&peer, &headers).await?;
    let fleet = api.stores.listed().ok_or(ApiError::NotListed)?;
    let (policies, unreadable) = api.stores.policies();
    let undeclared = policies.undeclared(None);
    let databases = fleet.databases.state();
    let namespaces: BTreeSet<String> = databases.iter().filter_map(|it| it.namespace()).collect();
    let mut rights: BTreeSet<Right> = namespaces.iter().flat_map(|namespace| of_fleet(namespace)).collect();
    rights.extend(undeclared.iter().filter_map(of_undeclared));
    let held = api.held(&user, rights).await?;
    let visible =
        |namespace: &str| ["get", "list"].iter().all(|verb| held.contains(&Right::on(verb, DATABASES, namespace)));
    let evaluated =
        |namespace: &str| EVALUATED_FROM.iter().all(|kind| held.contains(&Right::on("list", kind, namespace)));

    let of_fleet = Objects::of(&fleet);
    let index = of_fleet.index();
    let (mut rows, mut not_evaluated): (Vec<Row>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut to_evaluate: Vec<&ProtectedDatabase> = Vec::new();
    for database in &databases {
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        if !visible(&namespace) {
            continue;
        }
        match &database.0 {
            _ if !evaluated(&namespace) => not_evaluated.push(json!({"namespace": namespace, "name": name})),
            Ok(parsed) => to_evaluate.push(parsed),
            Err(_) => rows.push(Row::unreadable(&namespace, &name)),
        }
    }
    let now = api.context.now();
    rows.extend(compliance::rows(to_evaluate, &index, &policies, fleet.checks.as_deref(), now));
    rows.extend(undeclared.into_iter().filter(|row| of_undeclared(row).is_some_and(|right| held.contains(&right))));
    compliance::worst_first(&mut rows);
    not_evaluated.sort_by_key(ToString::to_string);
    Ok(Json(json!({
        "time": now,
        "databases": rows,
        "notEvaluated": not_evaluated,
        "unreadablePolicies": unreadable,
        "leads": fleet.leads,
        "namespace": api.context.settings.watch_namespace,
    })))
}

/// What the list of databases of a namespace takes.
fn of_fleet(namespace: &str) -> impl Iterator<Item = Right> {
    let databases = ["get", "list"].map(|verb| Right::on(verb, DATABASES, namespace));
    let others = EVALUATED_FROM.map(|kind| Right::on("list", kind, namespace));
    databases.into_iter().chain(others)
}

/// A cluster of another operator is shown to those who may `list` clusters of its kind. `clusters.postgresql.cnpg.io/main`
fn of_undeclared(row: &Row) -> Option<Right> {
    let (kind, _) = row.violations.first()?.object.split_once('/')?;
    let (resource, group) = kind.split_once('.')?;
    Some(Right { group: group.to_owned(), ..Right::on("list", resource, &row.metadata.namespace) })
}

async fn database((State(api), peer, headers): Request<'_>, Path(name): Path<(String, String)>) -> Answer {
    let seen = api.database(&peer, &headers, &name).await?;
    let now = api.context.now();
    let Ok(parsed) = &seen.object.0 else {
        let row = Row::unreadable(&name.0, &name.1);
        return Ok(Json(json!({"time": now, "compliance": row, "database": null, "leads": seen.fleet.leads})));
    };
    let mut row = None;
    if api.may_list(&seen.user, &EVALUATED_FROM, &name.0).await? {
        let (policies, _) = api.stores.policies();
        row = evaluate(&seen.fleet, parsed, &policies, now);
    }
    Ok(Json(json!({
        "time": now,
        "compliance": row,
        "database": DatabaseView::of(parsed),
        "leads": seen.fleet.leads,
    })))
}

fn evaluate(fleet: &Fleet, database: &ProtectedDatabase, policies: &Policies, now: jiff::Timestamp) -> Option<Row> {
    let objects = Objects::of(fleet);
    let index = objects.index();
    compliance::rows([database], &index, policies, fleet.checks.as_deref(), now).pop()
}

/// The cascade graph, as the catalog was last read.
async fn graph((State(api), peer, headers): Request<'_>, Path(name): Path<(String, String)>) -> Answer {
    let seen = api.database(&peer, &headers, &name).await?;
    let uid = seen.object.uid().unwrap_or_default();
    let last = api.stores.graphs().last(&uid);
    if last.is_none() && !seen.fleet.leads {
        return Err(ApiError::Standby);
    }
    Ok(Json(match last {
        None => json!({"time": null, "graph": null, "message": "the catalog of this database was not read yet"}),
        Some(read) => match &read.graph {
            Some(graph) => json!({"time": read.at, "graph": graph}),
            None => json!({"time": read.at, "graph": null,
                "message": "the graphs of all databases together are too large to be kept"}),
        },
    }))
}

async fn guards((State(api), peer, headers): Request<'_>, Path(name): Path<(String, String)>) -> Answer {
    let seen = api.database(&peer, &headers, &name).await?;
    api.must_list(&seen.user, &["tableguards"], &name.0).await?;
    let now = api.context.now();
    let (mut found, unreadable) = of_database(&seen.fleet.guards, &name, |guard| &guard.spec.database_ref.name);
    found.sort_by_key(|guard| guard.name_any());
    let parsed = found.iter().filter_map(|guard| guard.0.as_ref().ok());
    let views: Vec<GuardView<'_>> = parsed.map(|guard| GuardView::of(guard, &api.stores.attempts, now)).collect();
    Ok(Json(json!({"time": now, "guards": views, "unreadable": unreadable})))
}

async fn backups((State(api), peer, headers): Request<'_>, Path(name): Path<(String, String)>) -> Answer {
    let seen = api.database(&peer, &headers, &name).await?;
    api.must_list(&seen.user, &["backupschedules", "databasebackups"], &name.0).await?;
    let now = api.context.now();
    let Ok(database) = &seen.object.0 else {
        return Ok(Json(json!({"time": now, "schedules": [], "backups": [], "older": 0})));
    };
    let objects = Objects::of(&seen.fleet);
    let index = objects.index();
    let facts = index.facts(database, None, now);
    let schedules: Vec<_> = facts.schedules.iter().map(|schedule| ScheduleView::of(schedule)).collect();
    let mut backups: Vec<_> = facts.backups.iter().map(|backup| BackupView::of(backup)).collect();
    backups.sort_by_cached_key(BackupView::newest_first);
    let older = backups.len().saturating_sub(MOST);
    backups.truncate(MOST);
    Ok(Json(json!({"time": now, "schedules": schedules, "backups": backups, "older": older})))
}

async fn restores((State(api), peer, headers): Request<'_>, Path(name): Path<(String, String)>) -> Answer {
    let seen = api.database(&peer, &headers, &name).await?;
    api.must_list(&seen.user, &["databaserestores"], &name.0).await?;
    let store = api.stores.restores();
    let (found, unreadable) = of_database(&store, &name, |restore| &restore.spec.target.database_ref.name);
    let mut views: Vec<_> = found.iter().filter_map(|it| it.0.as_ref().ok()).map(RestoreView::of).collect();
    views.sort_by_cached_key(RestoreView::newest_first);
    let older = views.len().saturating_sub(MOST);
    views.truncate(MOST);
    Ok(Json(json!({"time": api.context.now(), "restores": views, "older": older, "unreadable": unreadable})))
}

/// The objects of a kind that refer to a database, and how many of its namespace cannot be read as their type.
fn of_database<K>(
    store: &Store<K>,
    (namespace, name): &(String, String),
    refers: fn(&K) -> &String,
) -> (Vec<Arc<Watched<K>>>, usize)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let of_namespace = store.state_filter(|object| object.namespace().as_deref() == Some(namespace));
    let unreadable = of_namespace.iter().filter(|object| object.0.is_err()).count();
    let refers = |object: &Arc<Watched<K>>| object.0.as_ref().is_ok_and(|object| refers(object) == name);
    (of_namespace.into_iter().filter(refers).collect(), unreadable)
}

/// The objects that databases are evaluated from.
struct Objects {
    guards: Vec<Arc<Watched<pgrail_crds::TableGuard>>>,
    schedules: Vec<Arc<Watched<pgrail_crds::BackupSchedule>>>,
    backups: Vec<Arc<Watched<pgrail_crds::DatabaseBackup>>>,
}

impl Objects {
    fn of(fleet: &Fleet) -> Self {
        Self { guards: fleet.guards.state(), schedules: fleet.schedules.state(), backups: fleet.backups.state() }
    }

    fn index(&self) -> Index<'_> {
        fn parsed<K: Resource>(objects: &[Arc<Watched<K>>]) -> impl Iterator<Item = &K> {
            objects.iter().filter_map(|object| object.0.as_ref().ok())
        }
        Index::new(parsed(&self.guards), parsed(&self.schedules), parsed(&self.backups))
    }
}

/// A database that the user may see.
struct Seen {
    user: Arc<User>,
    fleet: Fleet,
    object: Arc<Watched<ProtectedDatabase>>,
}

impl Api {
    async fn user(&self, ConnectInfo(peer): &ConnectInfo<Peer>, headers: &HeaderMap) -> Result<Arc<User>, ApiError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = self.access.user(peer.0, header).await;
        user.map_err(|refused| ApiError::refused(refused, self.access.audiences()))
    }

    async fn held(&self, user: &User, rights: BTreeSet<Right>) -> Result<BTreeSet<Right>, ApiError> {
        let held = self.access.held(user, rights).await;
        held.map_err(|refused| ApiError::refused(refused, self.access.audiences()))
    }

    async fn may_list(&self, user: &User, kinds: &[&str], namespace: &str) -> Result<bool, ApiError> {
        let rights: BTreeSet<Right> = kinds.iter().map(|kind| Right::on("list", kind, namespace)).collect();
        Ok(self.held(user, rights.clone()).await? == rights)
    }

    async fn must_list(&self, user: &User, kinds: &[&str], namespace: &str) -> Result<(), ApiError> {
        if self.may_list(user, kinds, namespace).await? {
            return Ok(());
        }
        Err(ApiError::Forbidden(format!("you have no right to list {} in the namespace {namespace}", kinds.join(", "))))
    }

    /// The database that a path names, if the user may `get` it. Whether others exist is not said.
    async fn database(
        &self,
        peer: &ConnectInfo<Peer>,
        headers: &HeaderMap,
        (namespace, name): &(String, String),
    ) -> Result<Seen, ApiError> {
        let user = self.user(peer, headers).await?;
        let right = Right { name: name.clone(), ..Right::on("get", DATABASES, namespace) };
        let of_all = Right::on("get", DATABASES, namespace);
        // All of a namespace first: the answer is cached for every one of its databases.
        let mut allowed = !self.held(&user, BTreeSet::from([of_all])).await?.is_empty();
        if !allowed {
            let may = self.access.may(&user, &right).await;
            allowed = may.map_err(|refused| ApiError::refused(refused, self.access.audiences()))?;
        }
        if !allowed {
            let message = format!("you have no right to get the ProtectedDatabase {name} in the namespace {namespace}");
            return Err(ApiError::Forbidden(message));
        }
        let fleet = self.stores.listed().ok_or(ApiError::NotListed)?;
        let object = fleet.databases.get(&ObjectRef::new(name).within(namespace));
        let object = object.ok_or_else(|| {
            ApiError::NotFound(format!("there is no ProtectedDatabase {name} in the namespace {namespace}"))
        })?;
        Ok(Seen { user, fleet, object })
    }
}
