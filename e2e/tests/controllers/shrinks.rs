//! The shrink alarm: a guarded table loses its rows, and the backup before is kept until a user acknowledges that.

use crate::backups::{Backups, phase, retention};
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, DatabaseBackup, TableGuard};
use pgrail_e2e::{eventually, field, holds, table_guard};
use serde_json::json;

#[tokio::test]
async fn the_backup_before_a_loss_is_kept_until_that_is_acknowledged() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "shrink").await;
    let namespace = &backups.fixture.namespace;
    let mut guard = table_guard(&["users", "messages"]);
    guard["spec"]["limits"] = json!({"maxRows": 100_000, "maxCascadeRows": 100_000, "maxTransactionRows": 1_000_000});
    backups.fixture.guard(&guard, "Enforced", "True", "Verified").await;
    let alarm = json!({"shrinkAlarm": {"percent": 50, "minRows": 100}});
    // Nobody has the private key: row counts of encrypted backups are compared without it, those of others in any case.
    let encryption = json!({"ageRecipients": ["age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"]});
    backups
        .apply(
            &json!({"runOnCreate": false, "retention": retention(1), "verification": alarm, "encryption": encryption}),
        )
        .await;
    let first = backups.by_hand("first").await;
    assert!(field(&first, "/status/comparison/notComparedBecause").as_str().unwrap().contains("first"), "{first:?}");
    backups.until("Shrunk", "Unknown", "NotCompared").await;
    assert!((backups.fixture.operator.metric("pgrail_backup_shrinks", &["nightly"]).await).abs() < 0.5);

    // The guard allows it, and only users are deleted.
    backups
        .fixture
        .app
        .batch_execute("SET session_replication_role = replica; DELETE FROM users WHERE id > 100")
        .await
        .unwrap();
    let second = backups.by_hand("second").await;
    assert!(holds(&second, "Ready", "True", "ReadBack") && holds(&second, "Shrunk", "True", "RowsLost"), "{second:?}");
    let worst = json!([{"table": "public.users", "before": 500, "after": 100, "dropped": false}]);
    assert_eq!(field(&second, "/status/comparison/tables"), worst);
    let message = backups.message("Shrunk", "True", "RowsLost").await;
    for part in ["public.users has 100 rows instead of 500", "first is kept", "acknowledge-shrink=second"] {
        assert!(message.contains(part), "{message}");
    }
    namespace.event("nightly", "BackupShrunk", "public.users").await;

    // A second loss: both backups before a loss are kept, whatever retention decides.
    backups.fixture.app.batch_execute("DELETE FROM messages").await.unwrap();
    assert!(holds(&backups.by_hand("third").await, "Shrunk", "True", "RowsLost"));
    assert_eq!(phase(&backups.by_hand("fourth").await), "Succeeded");
    let names = |left: &[DatabaseBackup]| {
        let mut names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    };
    eventually("the backup between is removed", async || {
        (names(&backups.list().await) == ["first", "fourth", "second"]).then_some(())
    })
    .await;
    let kept = |left: &[DatabaseBackup], name: &str| {
        left.iter().find(|it| it.name_any() == name).map(|it| field(it, "/status/keptBecause"))
    };
    let left = backups.list().await;
    assert_eq!(kept(&left, "first"), Some(json!(["BeforeLoss"])));
    assert_eq!(kept(&left, "second"), Some(json!(["BeforeLoss"])));
    // The backup with the second loss is gone; the loss is not.
    assert!(
        backups.message("Shrunk", "True", "RowsLost").await.contains("public.messages has 0 rows instead of 20000")
    );
    assert!(backups.fixture.operator.metric("pgrail_backup_shrinks", &["nightly"]).await > 1.5);

    namespace.annotate::<BackupSchedule>("nightly", "pgrail.dev/acknowledge-shrink", Some("third")).await;
    backups.until("Shrunk", "False", "NoRowsLost").await;
    namespace.event("nightly", "ShrinkAcknowledged", "second").await;
    eventually("only the newest is left", async || (names(&backups.list().await) == ["fourth"]).then_some(())).await;
    let guard = namespace.api::<TableGuard>().get("core").await.unwrap();
    assert!(holds(&guard, "Enforced", "True", "Verified"), "the guard was there all the time");
    backups.finish().await;
}
