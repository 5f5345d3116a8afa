//! Encrypted backups by a manifest: without a key they are made and verified, with it rows are restored.

use crate::backups::{Backups, phase};
use crate::fixture::count;
use pgrail_crds::{BackupSchedule, DatabaseRestore};
use pgrail_e2e::{condition, field, holds, wait_for};
use serde_json::{Value, json};

/// The key pair of age's own tests.
pub(crate) const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
pub(crate) const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn restore(name: &str, decryption: &Value) -> Value {
    json!({"metadata": {"name": name, "annotations": {"pgrail.dev/allow-in-place": "true"}}, "spec": {
        "source": {"backupRef": {"name": "first"}}, "decryption": decryption, "followCascade": true,
        "tables": [{"schema": "public", "name": "users", "where": "id = 42"}],
        "target": {"databaseRef": {"name": "shop"}, "mode": "InPlace"}}})
}

#[tokio::test]
async fn an_encrypted_backup_is_restored_with_the_identity_and_refused_without() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "encrypted").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false, "encryption": {"ageRecipients": [PUBLIC]}})).await;
    let first = backups.by_hand("first").await;
    assert_eq!((phase(&first).as_str(), field(&first, "/status/encrypted")), ("Succeeded", json!(true)), "{first:?}");
    assert!(holds(&first, "Ready", "True", "ReadBack"));
    backups.fixture.app.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap();

    let stalled = async |name: &str, decryption: Value, part: &str| {
        namespace.apply::<DatabaseRestore>(&restore(name, &decryption)).await;
        let waits = |it: &DatabaseRestore| holds(it, "Stalled", "True", "IdentityRequired");
        let message =
            condition(&wait_for(namespace, name, "it waits for an identity", waits).await, "Stalled").unwrap().2;
        assert!(message.contains(part), "{message}");
    };
    stalled("no-identity", json!({}), "spec.decryption.identitySecretRef").await;
    stalled("no-secret", json!({"identitySecretRef": {"name": "absent"}}), "no Secret \"absent\"").await;
    namespace.secret("bad", &[("identity", &SECRET[..40])]).await;
    stalled("bad-secret", json!({"identitySecretRef": {"name": "bad"}}), "line 1 is neither").await;
    assert_eq!(count(&backups.fixture.app, "users").await, 499);

    namespace.secret("backup-key", &[("identity", SECRET)]).await;
    let identity = json!({"identitySecretRef": {"name": "backup-key"}});
    namespace.apply::<DatabaseRestore>(&restore("back", &identity)).await;
    let over = |it: &DatabaseRestore| matches!(field(it, "/status/phase").as_str(), Some("Succeeded" | "Failed"));
    let restored = wait_for(namespace, "back", "the restore has ended", over).await;
    assert!(holds(&restored, "Ready", "True", "Restored"), "{restored:?}");
    assert_eq!(count(&backups.fixture.app, "users").await, 500);
    assert_eq!(count(&backups.fixture.app, "messages").await, 20_000);
    backups.finish().await;
}

#[tokio::test]
async fn what_is_no_recipient_is_refused_with_its_field() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "recipients").await;
    let of = |key: &str| backups.schedule(&json!({"encryption": {"ageRecipients": [PUBLIC, key]}}));
    for bad in ["age1", SECRET, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN"] {
        let error = backups.fixture.namespace.try_apply::<BackupSchedule>(&of(bad)).await.unwrap_err().to_string();
        assert!(error.contains("spec.encryption.ageRecipients[1]"), "{error}");
    }
    // Only the checksum of the key shows a mistyped letter.
    let mistyped = PUBLIC.replace("age1t7", "age1t8");
    backups.apply(&json!({"encryption": {"ageRecipients": [PUBLIC, mistyped]}})).await;
    let message = backups.message("Stalled", "True", "InvalidSpec").await;
    assert!(message.contains("spec.encryption.ageRecipients: entry 2"), "{message}");
    backups.finish().await;
}
