use pgrail_postgres::{AddressPolicy, connect, detect_pooler, detect_pooler_on};
use pgrail_testing::{Pooler, for_each_server, pooler};

use crate::{of_uri, settings};

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_detected() {
    let settings = of_uri(&pooler(Pooler::Transaction));
    let policy = AddressPolicy::any();
    assert!(detect_pooler(&settings, &policy).await.unwrap());
    // With idle server connections in the pool, and with other sessions.
    let others = [connect(&settings).await.unwrap(), connect(&settings).await.unwrap()];
    for other in &others {
        other.simple_query("SELECT 1").await.unwrap();
    }
    for _ in 0..5 {
        assert!(detect_pooler(&settings, &policy).await.unwrap());
    }
    assert!(detect_pooler_on(&others[0], &policy).await.unwrap());
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_not_detected() {
    let settings = of_uri(&pooler(Pooler::Session));
    for _ in 0..5 {
        assert!(!detect_pooler(&settings, &AddressPolicy::any()).await.unwrap());
    }
}

#[tokio::test]
async fn a_direct_connection_is_not_detected() {
    for_each_server(async |server| {
        let connection = connect(&settings(&server)).await.unwrap();
        assert!(!detect_pooler_on(&connection, &AddressPolicy::any()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn errors_of_the_pooler_have_their_reasons() {
    let mut settings = of_uri(&pooler(Pooler::Session));
    settings.password = Some(pgrail_postgres::Password::new("Geheimnis"));
    crate::fails(&settings, "AuthenticationFailed").await;
}
