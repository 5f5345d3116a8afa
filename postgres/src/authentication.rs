//! Why an authentication failed.

/// Cause of a failed authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationProblem {
    /// SQLSTATE 28000 or 28P01.
    #[error("the server rejected the login: check the user, the password, and pg_hba.conf")]
    Rejected,
    /// SQLSTATE 42501.
    #[error(
        "the role lacks the CONNECT privilege on the database: run GRANT CONNECT ON DATABASE, and check that the role has LOGIN"
    )]
    NotPermitted,
    /// The settings contain no password.
    #[error("the server requires a password, and none is set")]
    PasswordMissing,
    /// The server requested the password in clear text. It was not sent.
    #[error(
        "the server requests the password in clear text, which is sent only with TLS mode verify-full, and only to the host that the Secret names: set this mode and name the host in the Secret, or use scram-sha-256 in pg_hba.conf"
    )]
    ClearPassword,
    /// MD5, or SCRAM with few iterations, to a host that the Secret does not name.
    #[error(
        "the server requests MD5, or SCRAM with fewer than 4096 iterations, which is refused because the Secret does not name the host: use scram-sha-256 with the default iterations, or name the host in the Secret"
    )]
    WeakMethod,
    /// For example GSSAPI.
    #[error(
        "the server requests an authentication method that is not supported: use scram-sha-256 for this role in pg_hba.conf"
    )]
    UnsupportedMethod,
    /// `channel_binding=require`, and the server did not use channel binding.
    #[error(
        "channel_binding=require is set, but the server did not use channel binding: use TLS and scram-sha-256, or remove the parameter"
    )]
    ChannelBinding,
    /// The server signature of SCRAM is wrong.
    #[error("the server could not prove that it knows the password: check that it is the right server")]
    WrongServerSignature,
}
