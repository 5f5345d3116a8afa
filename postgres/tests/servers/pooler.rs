use pgrail_postgres::{AddressPolicy, connect, detect_pooler, detect_pooler_on};
use pgrail_testing::{Pooler, for_each_server, pooler};

use crate::{of_uri, settings};

#[tokio::test]
async fn a_pooler_by_the_transaction_is_detected() {
    let settings = of_uri(&pooler(Pooler::Transaction));
    let policy = AddressPolicy::any();
    assert!(detect_pooler(&settings, &policy).await.unwrap());
    // With the pool warm, and with other sessions at it.
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
async fn a_pooler_by_the_session_is_fine() {
    let settings = of_uri(&pooler(Pooler::Session));
    for _ in 0..5 {
        assert!(!detect_pooler(&settings, &AddressPolicy::any()).await.unwrap());
    }
}

#[tokio::test]
async fn no_pooler_is_fine() {
    for_each_server(async |server| {
        let connection = connect(&settings(&server)).await.unwrap();
        assert!(!detect_pooler_on(&connection, &AddressPolicy::any()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn the_poolers_own_refusals_have_their_reasons() {
    let mut settings = of_uri(&pooler(Pooler::Session));
    settings.password = Some(pgrail_postgres::Password::new("Geheimnis"));
    crate::fails(&settings, "AuthenticationFailed").await;
}
