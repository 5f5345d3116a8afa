//! Clusters of CloudNativePG, PGO and Zalando that have no `ProtectedDatabase`. Pure. Secrets are not read: a
//! `ProtectedDatabase` is of a cluster if its host is a Service of the cluster, if its Secret has the name that the other
//! operator gives it, or if its annotation names the cluster.

use crate::kubernetes::optional::{Found, Kind};
use kube::ResourceExt;
use pgrail_crds::ProtectedDatabase;
use pgrail_crds::annotations::CLUSTER;

/// `Cluster` of CloudNativePG.
pub(crate) const CLOUD_NATIVE_PG: Kind =
    Kind { group: "postgresql.cnpg.io", version: "v1", kind: "Cluster", plural: "clusters" };
/// `PostgresCluster` of PGO.
pub(crate) const PGO: Kind = Kind {
    group: "postgres-operator.crunchydata.com",
    version: "v1beta1",
    kind: "PostgresCluster",
    plural: "postgresclusters",
};
/// `postgresql` of Zalando's operator.
pub(crate) const ZALANDO: Kind =
    Kind { group: "acid.zalan.do", version: "v1", kind: "postgresql", plural: "postgresqls" };

/// The names that an operator derives from the name of a cluster.
struct Derived {
    services: Vec<String>,
    /// Name of a Secret, or what it begins or ends with.
    secret: fn(&str, &str) -> bool,
}

fn derived(kind: &Kind, name: &str) -> Derived {
    let services = |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
    if *kind == CLOUD_NATIVE_PG {
        Derived {
            services: services(&["-rw", "-ro", "-r"]),
            secret: |cluster, secret| {
                secret.strip_prefix(cluster).is_some_and(|rest| matches!(rest, "-app" | "-superuser"))
            },
        }
    } else if *kind == PGO {
        Derived {
            services: services(&["-primary", "-replicas", "-pgbouncer", "-ha"]),
            secret: |cluster, secret| secret.strip_prefix(cluster).is_some_and(|rest| rest.starts_with("-pguser-")),
        }
    } else {
        Derived {
            services: services(&["", "-repl", "-pooler", "-pooler-repl"]),
            secret: |cluster, secret| {
                secret
                    .strip_suffix(".credentials.postgresql.acid.zalan.do")
                    .is_some_and(|rest| rest.strip_suffix(cluster).is_some_and(|user| user.ends_with('.')))
            },
        }
    }
}

/// Whether a `ProtectedDatabase` of the same namespace is a database of this cluster.
pub(crate) fn is_of(database: &ProtectedDatabase, kind: &Kind, cluster: &Found) -> bool {
    if database.namespace().as_deref() != Some(cluster.namespace.as_str()) {
        return false;
    }
    if let Some(named) = database.annotations().get(CLUSTER) {
        return *named == cluster.name;
    }
    let derived = derived(kind, &cluster.name);
    let connection = &database.spec.connection;
    let service = connection.host.as_deref().and_then(|host| service(host, &cluster.namespace));
    service.is_some_and(|service| derived.services.iter().any(|it| it == service))
        || (derived.secret)(&cluster.name, &connection.secret_ref.name)
}

/// The Service of a namespace that a host name is of.
fn service<'a>(host: &'a str, namespace: &str) -> Option<&'a str> {
    let mut labels = host.trim_end_matches('.').splitn(3, '.');
    let name = labels.next().filter(|name| !name.is_empty())?;
    match labels.next() {
        None => Some(name),
        Some(other) => (other == namespace).then_some(name),
    }
}

/// What a violation says of it.
pub(crate) fn message(kind: &Kind, cluster: &Found) -> String {
    format!(
        "the {} {} ({}) has no ProtectedDatabase: create one, or if there is one, set its annotation {CLUSTER}: {}",
        kind.kind, cluster.name, kind.group, cluster.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn database(connection: Value, annotations: Value) -> ProtectedDatabase {
        serde_json::from_value(json!({"metadata": {"name": "x", "namespace": "shop", "annotations": annotations},
            "spec": {"connection": connection}}))
        .unwrap()
    }

    fn cluster(name: &str) -> Found {
        Found { namespace: "shop".into(), name: name.into(), ..Found::default() }
    }

    #[test]
    fn a_host_that_is_a_service_of_the_cluster_declares_it() {
        let at = |host: &str| database(json!({"secretRef": {"name": "s"}, "host": host}), json!({}));
        for host in ["main-rw", "main-ro.shop", "main-r.shop.svc", "main-rw.shop.svc.cluster.local."] {
            assert!(is_of(&at(host), &CLOUD_NATIVE_PG, &cluster("main")), "{host}");
        }
        for host in ["main", "other-rw", "main-rw.other.svc", "main-rw.example.com", "main-rw2"] {
            assert!(!is_of(&at(host), &CLOUD_NATIVE_PG, &cluster("main")), "{host}");
        }
        assert!(is_of(&at("hippo-primary.shop.svc"), &PGO, &cluster("hippo")));
        assert!(is_of(&at("acid-minimal"), &ZALANDO, &cluster("acid-minimal")));
        assert!(is_of(&at("acid-minimal-pooler"), &ZALANDO, &cluster("acid-minimal")));
    }

    #[test]
    fn the_secret_of_the_other_operator_declares_it() {
        let with = |secret: &str| database(json!({"secretRef": {"name": secret}}), json!({}));
        assert!(is_of(&with("main-app"), &CLOUD_NATIVE_PG, &cluster("main")));
        assert!(is_of(&with("main-superuser"), &CLOUD_NATIVE_PG, &cluster("main")));
        assert!(!is_of(&with("main-app"), &CLOUD_NATIVE_PG, &cluster("mai")));
        assert!(!is_of(&with("main-2-app"), &CLOUD_NATIVE_PG, &cluster("main")));
        assert!(is_of(&with("hippo-pguser-rail"), &PGO, &cluster("hippo")));
        assert!(!is_of(&with("hippo2-pguser-rail"), &PGO, &cluster("hippo")));
        let zalando = "rail.acid-minimal.credentials.postgresql.acid.zalan.do";
        assert!(is_of(&with(zalando), &ZALANDO, &cluster("acid-minimal")));
        assert!(!is_of(&with(zalando), &ZALANDO, &cluster("minimal")));
    }

    #[test]
    fn an_annotation_decides_and_another_namespace_never_counts() {
        let named = database(json!({"secretRef": {"name": "main-app"}}), json!({"pgrail.dev/cluster": "other"}));
        assert!(is_of(&named, &CLOUD_NATIVE_PG, &cluster("other")));
        assert!(!is_of(&named, &CLOUD_NATIVE_PG, &cluster("main")));
        let elsewhere = Found { namespace: "other".into(), ..cluster("other") };
        assert!(!is_of(&named, &CLOUD_NATIVE_PG, &elsewhere));
    }
}
