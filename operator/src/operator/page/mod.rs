//! The page: what pgrail knows, to look at. Read-only; every request needs a Kubernetes token, and shows what its user may read.

mod access;
mod api;
mod attempts;
mod bounded;
mod error;
mod files;
mod headers;
mod listener;
mod serve;
mod stores;
mod view;

pub(crate) use files::standalone;
pub(crate) use serve::{PageArgs, page};
pub(crate) use stores::Stores;
