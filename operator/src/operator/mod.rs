//! `pgrail operator`: what runs the controllers, and what they share.

mod http;
mod leader;
mod run;

pub(crate) use run::{OperatorArgs, run};
