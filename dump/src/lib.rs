//! The backup engine: dump, verify, inventory, prune, and the catalog of the store. Knows PostgreSQL, object stores and processes, and
//! nothing of Kubernetes.
//!
//! # The way of one backup
//!
//! ```no_run
//! # use pgrail_dump::*;
//! # async fn backup(connection: pgrail_postgres::ConnectionSettings, identity: BackupIdentity) -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = StoreSettings::new(StoreUrl::parse("s3://backups/shop")?);
//! settings.endpoint = Some("http://s3.infra.svc:9000".into());
//! settings.allow_http = true;
//! settings.credentials = StoreCredentials::from_keys([/* the keys of the Secret */]);
//! let store = Store::open(&settings)?;
//!
//! let request = DumpRequest::new(connection, identity);
//! let dumped = dump(&request, &store, &|_| {}).await?;
//! // The archive is in the store, and does not exist for anyone: it has no manifest.
//! let verified = verify(&VerifyRequest::new(dumped), &store, &|_| {}).await?;
//! // Every byte was read back, decoded and compared with the snapshot; the manifest was written last.
//! println!("{}", Message::Verify(verified).to_json());
//! # Ok(()) }
//! ```
//!
//! | step | function | result | error |
//! | --- | --- | --- | --- |
//! | take the dump | [`dump`], [`dump_until`] | [`DumpResult`] | [`DumpError`] |
//! | read it back, publish it | [`verify`], [`verify_until`] | [`VerifyResult`] | [`VerifyError`] |
//! | verify a published one again | [`reverify`], [`reverify_until`] | [`Reverified`] | [`ReverifyError`] |
//! | what there is | [`list`] | [`Listing`] of [`Manifest`]s | [`StoreError`] |
//! | what stays, and why | [`retention::decide`] (pure) | [`retention::Decision`]s | |
//! | whether it is still there | [`inventory`] | [`Inventory`] | [`InventoryError`] |
//! | remove the rest | [`prune`] | [`PruneReport`] | [`PruneError`] |
//!
//! Every error has `reason()`, one of the bounded set [`Reason`], and `failure(…)`, a [`Failure`] without secrets.
//! [`Message`] is what a container leaves behind for the operator: compact JSON of at most 4,096 bytes. The full
//! [`DumpResult`] (with `details`) goes from the container that dumps to the one that verifies by a file.
//!
//! # In the store
//!
//! `<prefix>/<cluster id>/<namespace>/<schedule>/<timestamp>-<run id>/` holds `dump.pgc.000` and, above 100 GiB, further
//! segments (put together in order they are what `pg_dump -Fc` wrote), `globals.sql` (roles and memberships, no
//! passwords, no settings), and `manifest.json`, written last and once. An encrypted dump has `dump.pgc.age.000`,
//! `globals.sql.age` and `index.json.age` instead: names of tables, their rows and everything else about the data are in the
//! last one, and its manifest holds only what it takes to find and list it. With a [`RowsKey`] it has `rows.json.age`, too: what
//! the next run compares its row counts with.
//!
//! # What it holds itself to
//!
//! - A dump is whole or refused: unreadable tables, sequences or large objects, row security, a client older than the
//!   server and transaction-mode poolers are found before the first byte.
//! - Row counts are taken under the very snapshot that pg_dump uses, and compared with those of the archive before the dump is
//!   published.
//! - Memory does not grow with the database: three parts of 16 MiB (see [`UploadLimits`]).
//! - A failure at any moment leaves nothing that could be mistaken for a backup; what could not be deleted is swept
//!   by a later [`prune`] after [`GRACE`].
//! - Passwords go to pg_dump by its environment only, and into no error, result or log.
//! - pgrail's own schema and triggers are part of a dump like everything else (a restore leaves them out); the rows of its
//!   tables are not compared.
//!
//! - A run holds no private key: what it encrypts it cannot read, except for the row counts with a [`RowsKey`].

mod archive;
mod catalog;
mod clients;
mod connection;
mod copy;
mod count;
pub mod create_database;
mod drill;
mod dump;
mod encryption;
mod extract;
mod filter;
mod identity;
mod inventory;
mod load;
mod manifest;
mod outcome;
mod parts;
mod preflight;
mod prune;
mod reason;
mod request;
mod restorable;
pub mod retention;
mod reverify;
mod secrets;
mod segments;
pub mod shrink;
mod sink;
mod snapshot;
mod source;
mod store;
mod tables;
mod text;
mod verify;

pub use archive::{Block, Contents, DecodeError, Entry, Head};
pub use catalog::{HIDDEN, Listing, Scope, Unreadable, list};
pub use clients::{ClientTools, ToolError};
pub use copy::{CopyEnd, copy_schema};
pub use count::RowCounter;
pub use drill::{
    DrillProblem, DrillServer, NotRestorable, SUPERUSER, SandboxError, ServerError, Structure, StructureOutcome,
    Throwaway, ThrowawayRequest, evaluate, forbid_network, leave_out_refreshes,
};
pub use dump::{DumpError, GLOBALS, INDEX, ROWS, discard, dump, dump_until};
pub use encryption::{Identities, IdentityTextError, RecipientError, Recipients, RowsKey};
pub use extract::{Extract, ExtractError, RowStream};
pub use filter::{Filter, PatternError};
pub use identity::{BackupIdentity, IdentityError, ScheduleIdentity, is_cluster_id};
pub use inventory::{
    Found, Inventory, InventoryError, InventoryRequest, KNOWN_AT_MOST, Known, LostCluster, Marks, inventory,
};
pub use load::{Load, LoadRows};
pub use manifest::{Archive, MANIFEST, MANIFEST_VERSION, Manifest, ManifestError, Verification};
pub use outcome::{
    DrillOutcome, DrillQueryResult, DrillResult, DumpDetails, DumpResult, Failure, MESSAGE_BYTES, Message,
    PartialCause, Phase, Remarks, RestoreResult, RestoredRows, VerificationLevel, VerifyResult,
};
pub use preflight::PreflightError;
pub use prune::{GRACE, PruneError, PruneReport, PruneRequest, Refused, prune};
pub use reason::Reason;
pub use request::{Compression, CompressionError, CompressionMethod, DumpRequest, Progress, RowCounts};
pub use restorable::{Restorable, Rights, restorable, restorable_without};
pub use reverify::{Compared, Mismatch, Reverified, ReverifyError, ReverifyRequest, reverify, reverify_until};
pub use secrets::Redactor;
pub use shrink::{Comparison, ShrinkAlarm, ShrunkTable};
pub use snapshot::SnapshotError;
pub use source::{Extension, Setting, Source};
pub use store::{
    CredentialSource, Listed, Scheme, Segment, Store, StoreCredentials, StoreError, StoreSettings, StoreUrl,
    StoreUrlError, UploadLimits,
};
pub use tables::{Rows, TableRows, TablesDiffer};
pub use text::error_chain;
pub use verify::{VerifyError, VerifyRequest, verify, verify_until};
