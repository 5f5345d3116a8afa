//! How pgrail reaches a PostgreSQL server: URIs, TLS, connecting, and why that failed.
