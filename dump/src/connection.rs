//! Sessions on the database, for us and for pg_dump.

use std::{io::Write, ops::Deref};

use pgrail_postgres::{ConnectError, ConnectionSettings, Reached};
use tempfile::NamedTempFile;

use crate::{Reason, secrets::Redactor};

/// What pg_dump is given to connect with: never arguments, which every process of the machine can read.
pub(crate) struct Environment {
    pub(crate) variables: Vec<(String, String)>,
    /// libpq takes the certificate authority as a file only.
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
        Ok(Self { variables, _ca_file: ca_file })
    }
}

/// Everything in the settings that must never be shown.
pub(crate) fn secrets(settings: &ConnectionSettings) -> Redactor {
    Redactor::new(settings.password.iter().map(|password| password.reveal()))
}

/// A session that ends when it is dropped.
pub(crate) struct Session {
    connected: pgrail_postgres::Connected,
}

impl Session {
    pub(crate) async fn open(settings: &ConnectionSettings) -> Result<Self, ConnectError> {
        Ok(Self { connected: pgrail_postgres::connect(settings).await? })
    }

    pub(crate) fn reached(&self) -> Reached {
        self.connected.reached
    }
}

impl Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.connected.client
    }
}

/// What a failed connection means for a dump.
pub(crate) fn reason(error: &ConnectError) -> Reason {
    match error.reason() {
        "AuthenticationFailed" => Reason::AuthenticationFailed,
        _ => Reason::ConnectionFailed,
    }
}
