-- A session that may stay in one transaction for days: every timeout that this server version knows is off.
-- Rows hidden by row security are an error, never silently missing. A client that went away is noticed.
SELECT set_config(name,
    CASE name WHEN 'row_security' THEN 'off' WHEN 'search_path' THEN '' WHEN 'client_connection_check_interval' THEN '10s' ELSE '0' END,
    false)
FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
    'transaction_timeout', 'row_security', 'search_path')
    -- Only platforms that can watch a socket take this one.
    OR (name = 'client_connection_check_interval' AND pg_catalog.version() LIKE '%linux%')
