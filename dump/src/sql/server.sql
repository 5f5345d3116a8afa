-- The server and the database as the snapshot sees them. PostgreSQL 10 and later.
SELECT pg_catalog.current_setting('server_version_num')::int AS version_number,
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.pg_is_in_recovery() AS standby,
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes,
    pg_catalog.current_database()::text AS database,
    (SELECT pg_catalog.pg_encoding_to_char(encoding)::text FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()) AS encoding,
    pg_catalog.transaction_timestamp() AS time,
    pg_catalog.pg_export_snapshot() AS snapshot
