//! Sessions on the database, for us and for pg_dump.

use std::io::Write;

use pgrail_postgres::{ConnectError, ConnectionSettings, Password, Reached};
use tempfile::NamedTempFile;

use crate::{Reason, secrets::Redactor};

/// What pg_dump is given to connect with: never arguments, which every process of the machine can read.
pub(crate) struct Environment {
    pub(crate) variables: Vec<(String, String)>,
    /// Removed from everything that a program prints.
    pub(crate) secrets: Redactor,
    /// libpq reads the CA from a file only.
    _ca_file: Option<NamedTempFile>,
}

impl Environment {
    pub(crate) fn new(settings: &ConnectionSettings, reached: &Reached) -> std::io::Result<Self> {
        let ca_file = match &settings.ca_pem {
            None => None,
            Some(pem) => {
                let mut file = NamedTempFile::new()?;
                file.write_all(pem)?;
                Some(file)
            }
        };
        let variables = settings.libpq_environment(ca_file.as_ref().map(NamedTempFile::path), Some(reached));
        Ok(Self { variables, secrets: secrets(settings), _ca_file: ca_file })
    }
}

/// The values that must never be shown.
pub(crate) fn secrets(settings: &ConnectionSettings) -> Redactor {
    Redactor::new(settings.password.iter().map(Password::reveal))
}

/// What a failed connection means for a dump.
pub(crate) fn reason(error: &ConnectError) -> Reason {
    match error {
        ConnectError::Authentication(_) => Reason::AuthenticationFailed,
        ConnectError::DatabaseMissing => Reason::DatabaseMissing,
        ConnectError::HostNotAllowed(_) => Reason::InvalidRequest,
        _ => Reason::ConnectionFailed,
    }
}
