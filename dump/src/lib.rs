//! The backup engine.

mod archive;
mod catalog;
mod clients;
mod connection;
mod dump;
mod filter;
mod identity;
mod manifest;
mod outcome;
mod preflight;
mod prune;
mod reason;
mod request;
pub mod retention;
mod secrets;
mod snapshot;
mod store;
mod tables;
mod verify;

pub use archive::{Contents, DecodeError};
pub use catalog::{HIDDEN, Listing, Scope, Unreadable, list};
pub use clients::{ClientTools, ToolError};
pub use dump::{DumpError, GLOBALS, dump, dump_until};
pub use filter::{Filter, PatternError};
pub use identity::{BackupIdentity, IdentityError, ScheduleIdentity};
pub use manifest::{MANIFEST, MANIFEST_VERSION, Manifest, ManifestError, Verification};
pub use outcome::{DumpDetails, DumpResult, Failure, MESSAGE_BYTES, Message, Phase, VerificationLevel, VerifyResult};
pub use preflight::PreflightError;
pub use prune::{GRACE, PruneError, PruneReport, PruneRequest, Refused, prune};
pub use reason::Reason;
pub use request::{Compression, CompressionError, CompressionMethod, DumpRequest, Progress, RowCounts};
pub use secrets::Redactor;
pub use snapshot::SnapshotError;
pub use store::{Listed, Scheme, Segment, Store, StoreCredentials, StoreError, StoreSettings, StoreUrl, StoreUrlError, UploadLimits};
pub use tables::{Rows, TableRows, TablesDiffer};
pub use verify::{VerifyError, VerifyRequest, verify, verify_until};
