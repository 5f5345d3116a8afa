-- Whether DROP DATABASE is refused here, and who can change that.
SELECT d.datistemplate AS is_template,
       pg_catalog.pg_has_role(d.datdba, 'USAGE') AS may_change,
       pg_catalog.pg_get_userbyid(d.datdba)::text AS owner,
       pg_catalog.format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(d.datdba), current_user) AS membership,
       pg_catalog.format('ALTER DATABASE %I IS_TEMPLATE true', d.datname) AS protect,
       pg_catalog.format('ALTER DATABASE %I IS_TEMPLATE false', d.datname) AS release
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
