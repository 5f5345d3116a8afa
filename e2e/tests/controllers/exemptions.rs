//! Rights for a time: given, used, told, ended, taken back, refused.

use crate::fixture::{Fixture, count, refused};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::DeleteParams;
use pgrail_crds::{DatabaseBackup, ExemptionPhase, GuardExemption, GuardrailPolicy, ProtectedDatabase, TableGuard};
use pgrail_e2e::{
    Node, ObjectStore, STORE_ENDPOINT, condition, eventually, field, holds, protected_database, table_guard, wait_for,
};
use pgrail_testing::{Client, for_each_server, programs};
use serde_json::{Value, json};

/// A moment so many seconds from now, as the API writes it.
pub(crate) fn in_seconds(seconds: i64) -> String {
    let at = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
    Timestamp::from_second(at.as_second()).unwrap().to_string()
}

/// A guarded database, and a login of the application that is no superuser.
struct Exempt {
    fixture: Fixture,
    role: String,
    app: Client,
}

impl Exempt {
    async fn new(server: &pgrail_testing::Server, name: &str) -> Self {
        let fixture = Fixture::with_guard(server, name).await;
        let role = server.role_name("purge");
        let grant = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        );
        fixture.app.batch_execute(&grant).await.unwrap();
        let app = fixture.database.connect_as(&role, "secret").await;
        Self { fixture, role, app }
    }

    fn manifest(&self, name: &str, patch: &Value) -> Value {
        let mut spec = json!({
            "guardRefs": [{"name": "core"}], "role": self.role, "notAfter": in_seconds(3600), "reason": "ticket 4711",
            "limits": {"maxRows": 400, "maxCascadeRows": 100_000},
        });
        for (key, value) in patch.as_object().unwrap() {
            spec[key] = value.clone();
        }
        if spec["unlimited"] == true {
            spec.as_object_mut().unwrap().remove("limits");
        }
        json!({"metadata": {"name": name}, "spec": spec})
    }

    async fn apply(&self, name: &str, patch: &Value) {
        self.fixture.namespace.apply::<GuardExemption>(&self.manifest(name, patch)).await;
    }

    async fn until(&self, name: &str, phase: ExemptionPhase, reason: &str) -> GuardExemption {
        let wanted = |it: &GuardExemption| {
            let ready = condition(it, "Ready");
            it.status.as_ref().is_some_and(|status| status.phase == Some(phase))
                && ready.is_some_and(|(_, why, _)| why == reason)
        };
        wait_for(&self.fixture.namespace, name, &format!("{phase:?}, {reason}"), wanted).await
    }

    async fn delete(&self, name: &str) {
        let api = self.fixture.namespace.api::<GuardExemption>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually("the exemption is gone", async || api.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }

    async fn finish(self) {
        drop(self.app);
        let sql = format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.role);
        self.fixture.app.batch_execute(&sql).await.unwrap();
        self.fixture.finish().await;
    }
}

const BULK: &str = "DELETE FROM users WHERE id <= 200";

#[tokio::test]
async fn an_exemption_lets_its_role_through_tells_of_it_and_is_taken_back_with_its_object() {
    for_each_server(async |server| {
        let it = Exempt::new(&server, "exempt").await;
        assert_eq!(refused(&it.app, BULK).await, "PGR01");
        it.apply("purge", &json!({})).await;
        it.until("purge", ExemptionPhase::Active, "Active").await;
        // Its role, and nobody else; its limits, and no row more.
        assert_eq!(refused(&it.fixture.app, BULK).await, "PGR01");
        assert_eq!(refused(&it.app, "DELETE FROM users WHERE id <= 401").await, "PGR01");
        let before = rows(&it.fixture.app).await;
        assert_eq!(it.app.execute(BULK, &[]).await.unwrap(), 200);
        let went = before - rows(&it.fixture.app).await;
        let used = wait_for(&it.fixture.namespace, "purge", "the use is told", |exemption: &GuardExemption| {
            exemption.status.as_ref().is_some_and(|status| status.used_rows == Some(went))
        })
        .await;
        let status = used.status.unwrap();
        assert_eq!(status.statements, Some(1));
        assert!(status.last_used_time.is_some());
        for wanted in ["ExemptionActive", "ExemptionUsed"] {
            it.fixture.namespace.event("purge", wanted, &it.role).await;
        }
        let events = it.fixture.namespace.events("purge").await;
        assert!(events.iter().any(|(_, note)| note.contains("ticket 4711")), "{events:?}");
        // The spec is what it was when somebody was given the right.
        let change = it.manifest("purge", &json!({"notAfter": in_seconds(7200)}));
        let refusal = it.fixture.namespace.try_apply::<GuardExemption>(&change).await.unwrap_err().to_string();
        assert!(refusal.contains("immutable"), "{refusal}");
        it.delete("purge").await;
        assert_eq!(refused(&it.app, "DELETE FROM users WHERE id <= 400").await, "PGR01");
        it.fixture.guard_until("core", "Enforced", "True", "Verified").await;
        let left = "SELECT count(*) FROM pgrail.allowance";
        assert_eq!(it.fixture.app.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
        it.finish().await;
    })
    .await;
}

async fn rows(client: &Client) -> i64 {
    let mut rows = 0;
    for table in ["users", "leads", "conversations", "messages", "analytics"] {
        rows += count(client, table).await;
    }
    rows
}

#[tokio::test]
async fn it_begins_and_ends_by_the_databases_clock_with_the_operator_down() {
    for_each_server(async |server| {
        let it = Exempt::new(&server, "clock").await;
        it.apply("purge", &json!({"notBefore": in_seconds(4), "notAfter": in_seconds(3600)})).await;
        it.apply("short", &json!({"tables": [{"schema": "public", "name": "users"}], "notAfter": in_seconds(6)})).await;
        it.until("purge", ExemptionPhase::Pending, "NotYet").await;
        it.until("short", ExemptionPhase::Active, "Active").await;
        it.fixture.namespace.api::<GuardExemption>().get("purge").await.unwrap();
        let Exempt { fixture, role, app } = it;
        let Fixture { namespace, operator, database, app: admin } = fixture;
        operator.kill().await;
        // One ends, the other has begun: both without anybody to say so.
        let ends = "SELECT count(*) FROM pgrail.allowance WHERE clock_timestamp() >= not_after";
        eventually("the short one is over", async || {
            (admin.query_one(ends, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        assert_eq!(app.execute(BULK, &[]).await.unwrap(), 200);
        // Another operator finds what happened meanwhile.
        let operator = pgrail_e2e::Operator::start_as(&namespace, "second").await;
        let used = |exemption: &GuardExemption| exemption.status.as_ref().is_some_and(|it| it.statements == Some(1));
        wait_for(&namespace, "purge", "the use is told", used).await;
        let over = |exemption: &GuardExemption| field(exemption, "/status/phase") == "Expired";
        wait_for(&namespace, "short", "over", over).await;
        // One that is over waits for no database.
        admin.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).await.unwrap();
        namespace.secret("shop-login", &[("uri", "postgres://nobody:wrong@127.0.0.1:1/shop")]).await;
        let api = namespace.api::<GuardExemption>();
        api.delete("short", &DeleteParams::default()).await.unwrap();
        eventually("the one that is over is gone", async || {
            api.get_opt("short").await.unwrap().is_none().then_some(())
        })
        .await;
        drop(app);
        admin.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
        Fixture { namespace, operator, database, app: admin }.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_given_says_why_and_never_comes_later() {
    let server = pgrail_testing::servers().remove(0);
    let it = Exempt::new(&server, "refusals").await;
    // Applied again from a backup or from git after its time: never.
    it.apply("late", &json!({"notAfter": in_seconds(-5)})).await;
    let late = it.until("late", ExemptionPhase::Rejected, "TooLate").await;
    assert!(holds(&late, "Stalled", "True", "TooLate"));
    it.apply("unguarded", &json!({"tables": [{"schema": "public", "name": "analytics"}]})).await;
    it.apply("unknown", &json!({"guardRefs": [{"name": "nosuch"}]})).await;
    it.apply("total", &json!({"limits": {"maxRows": 500, "maxTransactionRows": 100}})).await;
    it.apply("typo", &json!({"role": "nobody_of_that_name"})).await;
    let unguarded = it.until("unguarded", ExemptionPhase::Pending, "TableNotGuarded").await;
    assert!(condition(&unguarded, "Ready").unwrap().2.contains("public.analytics"));
    let unknown = it.until("unknown", ExemptionPhase::Pending, "GuardNotFound").await;
    assert!(condition(&unknown, "Ready").unwrap().2.contains("nosuch"));
    let total = it.until("total", ExemptionPhase::Rejected, "InvalidSpec").await;
    assert!(condition(&total, "Ready").unwrap().2.contains("maxTransactionRows (100)"));
    let typo = it.until("typo", ExemptionPhase::Active, "Active").await;
    assert!(condition(&typo, "Ready").unwrap().2.contains("it cannot be used"));
    assert_eq!(refused(&it.app, BULK).await, "PGR01");
    let mut both = it.manifest("both", &json!({"unlimited": true}));
    both["spec"]["limits"] = json!({"maxRows": 1});
    let refusal = it.fixture.namespace.try_apply::<GuardExemption>(&both).await.unwrap_err().to_string();
    assert!(refusal.contains("either limits or unlimited"), "{refusal}");
    it.finish().await;
}

#[tokio::test]
async fn one_that_asks_for_a_backup_waits_for_a_young_and_proven_one() {
    let server = pgrail_testing::server(18);
    let it = Exempt::new(&server, "backup").await;
    let store = ObjectStore::of_this_run();
    let namespace = &it.fixture.namespace;
    namespace.secret("s3", &store.keys()).await;
    let _node = Node::start(namespace, &store, programs(18));
    it.apply("purge", &json!({"requireBackup": {"maxAge": "1h"}})).await;
    let waits = it.until("purge", ExemptionPhase::Pending, "BackupRequired").await;
    assert!(condition(&waits, "Ready").unwrap().2.contains("create a DatabaseBackup"));
    assert_eq!(refused(&it.app, BULK).await, "PGR01");
    // One that failed proves nothing.
    let storage = json!({"url": format!("s3://{}/{}", store.bucket, namespace.name),
        "endpoint": STORE_ENDPOINT, "region": "us-east-1", "secretRef": {"name": "s3"}});
    let mut lost = storage.clone();
    lost["url"] = "s3://no-such-bucket/x".into();
    for (name, storage, phase) in [("lost", lost, "Failed"), ("before", storage, "Succeeded")] {
        let spec = json!({"databaseRef": {"name": "shop"}, "storage": storage});
        it.until("purge", ExemptionPhase::Pending, "BackupRequired").await;
        namespace.apply::<DatabaseBackup>(&json!({"metadata": {"name": name}, "spec": spec})).await;
        let ended = |backup: &DatabaseBackup| field(backup, "/status/phase") == phase;
        wait_for(namespace, name, phase, ended).await;
    }
    it.until("purge", ExemptionPhase::Active, "Active").await;
    it.apply("younger", &json!({"requireBackup": {"maxAge": "1ms"}})).await;
    let waits = it.until("younger", ExemptionPhase::Pending, "BackupRequired").await;
    assert!(condition(&waits, "Ready").unwrap().2.contains("the newest is of"));
    assert_eq!(it.app.execute(BULK, &[]).await.unwrap(), 200);
    it.finish().await;
}

#[tokio::test]
async fn a_policy_bounds_how_long_and_how_far() {
    let server = pgrail_testing::servers().remove(0);
    let it = Exempt::new(&server, "policy").await;
    let name = it.fixture.namespace.name.clone();
    let policies = kube::Api::<GuardrailPolicy>::all(it.fixture.namespace.cluster.client.clone());
    let policy = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardrailPolicy", "metadata": {"name": name},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "exemptions": {"maxDuration": "30m"}}});
    policies.create(&kube::api::PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    it.apply("long", &json!({})).await;
    let long = it.until("long", ExemptionPhase::Rejected, "ExceedsPolicy").await;
    assert!(condition(&long, "Ready").unwrap().2.contains("30m"));
    it.apply("wide", &json!({"unlimited": true, "notAfter": in_seconds(600)})).await;
    it.until("wide", ExemptionPhase::Rejected, "ExceedsPolicy").await;
    it.apply("short", &json!({"notAfter": in_seconds(600)})).await;
    it.until("short", ExemptionPhase::Active, "Active").await;
    policies.delete(&name, &DeleteParams::default()).await.unwrap();
    it.finish().await;
}

#[tokio::test]
async fn a_finished_one_goes_after_its_time_to_live_and_a_guard_that_goes_takes_the_right_along() {
    let server = pgrail_testing::servers().remove(0);
    let it = Exempt::new(&server, "ttl").await;
    it.apply("late", &json!({"notAfter": in_seconds(-5), "ttlSecondsAfterFinished": 1})).await;
    let api = it.fixture.namespace.api::<GuardExemption>();
    eventually("deleted by itself", async || api.get_opt("late").await.unwrap().is_none().then_some(())).await;
    it.apply("purge", &json!({"unlimited": true})).await;
    it.until("purge", ExemptionPhase::Active, "Active").await;
    let guards = it.fixture.namespace.api::<TableGuard>();
    guards.delete("core", &DeleteParams::default()).await.unwrap();
    eventually("the guard is gone", async || guards.get_opt("core").await.unwrap().is_none().then_some(())).await;
    // A new guard of that name starts with what the exemption still says, since that is still in force.
    it.fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;
    it.until("purge", ExemptionPhase::Active, "Active").await;
    eventually("the right is back", async || it.app.execute(BULK, &[]).await.is_ok().then_some(())).await;
    // And an exemption without guard and database is let go.
    it.fixture.namespace.delete::<ProtectedDatabase>("shop").await;
    it.delete("purge").await;
    it.fixture.namespace.event("purge", "ExemptionLeftBehind", "").await;
    it.fixture.namespace.apply::<ProtectedDatabase>(&protected_database()).await;
    assert!(guards.get("core").await.unwrap().name_any() == "core");
    it.finish().await;
}
