//! `pgrail operator`: what runs the controllers, and what they share.

mod context;
mod http;
mod leader;
mod metrics;
mod run;
mod settings;

pub(crate) use context::Context;
pub(crate) use metrics::Metrics;
pub(crate) use run::{OperatorArgs, run};
pub(crate) use settings::Settings;
