//! `pgrail operator`: what runs the controllers, and what they share.

mod http;
mod leader;
pub(crate) mod page;
mod run;

pub(crate) use run::{OperatorArgs, run};
