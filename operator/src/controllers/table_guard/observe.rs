//! What a check asks of PostgreSQL every time: whether anything changed, and what was stopped.

use crate::database::{DatabaseError, Session};
use pgrail_guard::{Counter, Fingerprint, GuardSpec, WindowUse};

/// The database as it is now. The catalog itself is read only where the fingerprint is another one than before.
pub(super) async fn observe(session: &Session) -> Result<Fingerprint, DatabaseError> {
    pgrail_guard::light_check(session).await.map_err(|error| DatabaseError::lost(&error))
}

/// How much of the windows of one guard is used.
pub(super) async fn windows(spec: &GuardSpec, session: &Session) -> Result<Vec<WindowUse>, DatabaseError> {
    let declared = spec.limits.window.is_some() || spec.selectors.iter().any(|it| it.limits.window.is_some());
    if !declared {
        return Ok(Vec::new());
    }
    pgrail_guard::windows(session, Some(&spec.name)).await.map_err(|error| DatabaseError::lost(&error))
}

/// The counters of one guard.
pub(super) async fn counters(spec: &GuardSpec, session: &Session) -> Result<Vec<Counter>, DatabaseError> {
    let counters = pgrail_guard::counters(session).await.map_err(|error| DatabaseError::lost(&error))?;
    Ok(counters.into_iter().filter(|counter| counter.guard == spec.name.as_str()).collect())
}
