//! The backup engine: dump, verify, prune, and the catalog of the store.

mod archive;
mod filter;
mod identity;
mod reason;
pub mod retention;
mod secrets;
mod store;

pub use archive::Contents;
pub use filter::{Filter, PatternError};
pub use identity::{BackupIdentity, IdentityError, ScheduleIdentity};
pub use reason::Reason;
pub use secrets::Redactor;
pub use store::{Listed, Scheme, Segment, Store, StoreCredentials, StoreError, StoreSettings, StoreUrl, StoreUrlError, UploadLimits};
