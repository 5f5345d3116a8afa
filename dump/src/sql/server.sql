-- The server and the database as the snapshot sees them. PostgreSQL 10 and later.
SELECT pg_catalog.current_setting('server_version_num')::int AS version_number,
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.pg_is_in_recovery() AS standby,
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes,
    pg_catalog.current_database()::text AS database,
    (SELECT pg_catalog.pg_encoding_to_char(encoding)::text FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()) AS encoding,
    pg_catalog.transaction_timestamp() AS time,
    -- The last moment at which everything committed on the primary was visible here. With a connected primary and no WAL
    -- left to replay this is its last message; else the commit of the last replayed transaction, or at least the last
    -- checkpoint. Roles outside pg_read_all_stats do not see the WAL receiver's columns: for them the last commit counts.
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN COALESCE(
        GREATEST(pg_catalog.pg_last_xact_replay_timestamp(), (SELECT r.last_msg_send_time FROM pg_catalog.pg_stat_get_wal_receiver() r
            WHERE r.status = 'streaming' AND r.latest_end_lsn <= pg_catalog.pg_last_wal_replay_lsn())),
        (SELECT c.checkpoint_time FROM pg_catalog.pg_control_checkpoint() c)) END AS replayed,
    pg_catalog.pg_export_snapshot() AS snapshot
